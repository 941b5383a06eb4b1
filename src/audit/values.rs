//! Keyed hashes of the values that are disclosed: "was *this* value served?" can be answered from the log, by who may use
//! the key, and by nobody else.
//!
//! The key is a data key of upstream's transit engine: it comes in clear and wrapped, the clear one stays in memory, and
//! the wrapped one goes into the log, in the line [`audit.key`](super::Event::AuditKey). So the broker can hash and, once
//! it has ended, not even it can compare; an auditor has the key unwrapped, and compares. Without the key a hash tells
//! nothing of its value, however easily that is guessed; of the same boot, equal values have equal hashes.
//!
//! HMAC: [RFC 2104](https://www.rfc-editor.org/rfc/rfc2104), with SHA-256, of which the first 128 bits are kept (section 5
//! there). The message is the value itself: the bytes of a string, without JSON's escapes; a
//! number as JSON writes it shortest.

use std::fmt::{self, Write as _};

use ring::hmac;
use schemars::JsonSchema;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::chain::Hash;
use crate::secret::sealed::Hashes;

/// What the hashes of one line may take, in bytes: about a hundred values. Those beyond are counted.
const ROOM: usize = 8 * 1024;

/// What a hash takes beside the name of its value: quotes, colon and comma.
const AROUND: usize = 6;

/// How many bits of a hash are kept, in bytes.
const KEPT: usize = 16;

/// The first 128 bits of an HMAC-SHA-256.
pub(super) type ValueHash = [u8; KEPT];

/// The key that values are hashed with.
#[derive(Clone, Debug)]
pub struct ValueKey {
    key: hmac::Key,
    id: Box<str>,
}

impl ValueKey {
    /// The key with these bytes, which is wrapped so.
    #[must_use]
    pub fn new(bytes: &[u8; 32], wrapped: &WrappedKey) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, bytes), id: wrapped.id().into() }
    }

    /// The hash of one value.
    #[must_use]
    pub fn hash_of(&self, value: &[u8]) -> ValueHash {
        let whole = hmac::sign(&self.key, value);
        // SHA-256 has twice as many bytes.
        whole.as_ref().first_chunk().copied().unwrap_or_default()
    }
}

/// In hexadecimal digits, as lines have it.
#[must_use]
fn hex(hash: &ValueHash) -> String {
    hash.iter().fold(String::with_capacity(2 * KEPT), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The digits of a line.
#[must_use]
pub(super) fn unhex(text: &str) -> Option<ValueHash> {
    let mut hash = [0; KEPT];
    let pairs = text.as_bytes().as_chunks::<2>();
    if pairs.0.len() != KEPT || !pairs.1.is_empty() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(pairs.0) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

/// The wrapped key of a boot's values, as its line names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrappedKey {
    /// Where the transit engine is mounted, in the namespace that the broker logs in to.
    pub mount: String,
    /// The key there that it is wrapped with.
    pub name: String,
    /// The key, wrapped: `vault:v1:…`.
    pub wrapped: String,
}

impl WrappedKey {
    /// What the lines name it by whose values were hashed with it: the first 64 bits of the SHA-256 of the wrapped key. A
    /// lease that is kept for long has the hashes of when it was minted, by a key of an earlier day.
    #[must_use]
    pub fn id(&self) -> String {
        let hash = Hash::of(self.wrapped.as_bytes());
        hash.as_str()[..16].to_owned()
    }
}

/// The hashes of the values in an answer, by their places.
#[derive(Clone, Debug)]
pub struct Values {
    /// The id of the key.
    pub(super) key: Box<str>,
    /// An object of hashes.
    pub(super) hashes: Box<RawValue>,
    /// How many values there are beside these.
    pub(super) omitted: u64,
}

impl Hashes for ValueKey {
    type Hashed = Option<Values>;

    /// Hashes each value of a JSON document: strings that are not empty, and numbers. Their places are JSON pointers
    /// ([RFC 6901](https://www.rfc-editor.org/rfc/rfc6901)). `None` where there is no value.
    fn hash(&self, bytes: &[u8]) -> Option<Values> {
        let mut walk = Walk { key: self, place: String::new(), object: "{".to_owned(), omitted: 0 };
        let mut document = serde_json::Deserializer::from_slice(bytes);
        // What is no JSON holds no value that could be named.
        if Here(&mut walk).deserialize(&mut document).is_err() && walk.object.len() == 1 {
            return None;
        }
        let Walk { mut object, omitted, .. } = walk;
        object.push('}');
        let hashes = RawValue::from_string(object).ok()?;
        (hashes.get() != "{}" || omitted > 0).then(|| Values { key: self.id.clone(), hashes, omitted })
    }
}

/// A walk through a document, which copies no value: each is hashed where it stands.
struct Walk<'k> {
    key: &'k ValueKey,
    /// The pointer to where it is.
    place: String,
    /// The hashes so far.
    object: String,
    omitted: u64,
}

impl Walk<'_> {
    fn value(&mut self, value: &[u8]) {
        let Ok(place) = serde_json::to_string(&self.place) else { return };
        if self.object.len() + place.len() + 2 * KEPT + AROUND > ROOM {
            self.omitted += 1;
            return;
        }
        let comma = if self.object.len() == 1 { "" } else { "," };
        let hash = hex(&self.key.hash_of(value));
        let _ = write!(self.object, "{comma}{place}:\"{hash}\"");
    }

    /// Goes on below a name or a number.
    fn below<T>(&mut self, token: &str, go: impl FnOnce(&mut Self) -> T) -> T {
        let back = self.place.len();
        self.place.push('/');
        for letter in token.chars() {
            match letter {
                '~' => self.place.push_str("~0"),
                '/' => self.place.push_str("~1"),
                letter => self.place.push(letter),
            }
        }
        let done = go(self);
        self.place.truncate(back);
        done
    }
}

/// What stands at the walk's place.
struct Here<'w, 'k>(&'w mut Walk<'k>);

impl<'de> DeserializeSeed<'de> for Here<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Here<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if !text.is_empty() {
            self.0.value(text.as_bytes());
        }
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.0.value(number.to_string().as_bytes());
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.0.value(number.to_string().as_bytes());
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        // JSON has no others.
        if let Some(number) = serde_json::Number::from_f64(number) {
            self.0.value(number.to_string().as_bytes());
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            self.0.below(&name, |walk| map.next_value_seed(Here(walk)))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut at = 0_u64;
        while self.0.below(&at.to_string(), |walk| seq.next_element_seed(Here(walk)))?.is_some() {
            at += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::secret::Secret;

    fn key() -> ValueKey {
        let wrapped = WrappedKey { mount: "transit".into(), name: "k".into(), wrapped: "vault:v1:x".into() };
        ValueKey::new(&[7; 32], &wrapped)
    }

    fn hashed(document: &Value) -> Option<(BTreeMap<String, String>, u64)> {
        hashed_text(document.to_string())
    }

    fn hashed_text(document: String) -> Option<(BTreeMap<String, String>, u64)> {
        let values = Secret::new(document.into_bytes()).hashed(&key())?;
        Some((serde_json::from_str(values.hashes.get()).expect("an object"), values.omitted))
    }

    #[test]
    fn a_hash_is_that_of_everybody_elses_hmac() {
        // printf %s password | openssl dgst -sha256 -mac HMAC -macopt hexkey:0707… | cut -c 1-32
        assert_eq!(hex(&key().hash_of(b"password")), "11f6be61e0bf1305e700425281bda316");
        assert_eq!(unhex("000102030405060708090a0b0c0d0eff").map(|hash| hash[15]), Some(255));
        for wrong in ["", "00", "zz0102030405060708090a0b0c0d0e0f", "000102030405060708090a0b0c0d0e0f0"] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn each_value_has_its_place() {
        let document = json!({
            "username": "v-orders", "port": 5432, "rate": 0.5, "below": -3, "tls": true, "none": null, "empty": "",
            "a/b~c": ["one", {"\"": "two"}], "object": {}, "list": [],
        });
        let (hashes, omitted) = hashed(&document).expect("values");
        let places: Vec<_> = hashes.keys().map(String::as_str).collect();
        assert_eq!(
            places,
            ["/a~1b~0c/0", "/a~1b~0c/1/\"", "/below", "/port", "/rate", "/username"],
            "in the order of JSON pointers"
        );
        assert_eq!(omitted, 0);
        for (place, value) in
            [("/port", "5432"), ("/rate", "0.5"), ("/below", "-3"), ("/username", "v-orders")]
        {
            assert_eq!(hashes[place], hex(&key().hash_of(value.as_bytes())), "{place}");
        }
        for none in [json!(null), json!({}), json!({"a": [null, true, ""]})] {
            assert!(hashed(&none).is_none(), "{none}");
        }
        let (alone, _) = hashed(&json!("alone")).expect("a value");
        assert_eq!(alone.keys().collect::<Vec<_>>(), [""]);
    }

    #[test]
    fn what_does_not_fit_into_a_line_is_counted() {
        let many: serde_json::Map<_, _> = (0..1000).map(|at| (format!("{at:04}"), json!("x"))).collect();
        let (hashes, omitted) = hashed(&Value::Object(many)).expect("values");
        assert_eq!(hashes.len() as u64 + omitted, 1000);
        assert!(hashes.len() > 150, "{}", hashes.len());
        let (hashes, omitted) = hashed(&json!({"x".repeat(10_000): "y", "z": "z"})).expect("values");
        assert_eq!((hashes.len(), omitted), (1, 1));
    }

    #[test]
    fn what_is_no_json_has_no_values() {
        for text in ["", "nonsense", "{", "\u{0}"] {
            assert!(Secret::new(text.as_bytes().to_vec()).hashed(&key()).is_none(), "{text:?}");
        }
        let deep = "[".repeat(10_000);
        assert!(Secret::new(deep.into_bytes()).hashed(&key()).is_none());
    }

    fn documents() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,30}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".{0,12}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn each_hash_is_of_what_its_pointer_leads_to(document in documents()) {
            // As it is read again: not every number is the same then.
            let text = document.to_string();
            let document: Value = serde_json::from_str(&text).expect("JSON");
            let Some((hashes, omitted)) = hashed_text(text) else { return Ok(()) };
            prop_assert_eq!(omitted, 0);
            for (place, hash) in hashes {
                let value = document.pointer(&place).expect("the pointer leads somewhere");
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                prop_assert_eq!(hash, hex(&key().hash_of(text.as_bytes())));
            }
        }
    }
}
