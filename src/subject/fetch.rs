//! Requests to an issuer: bounded in time and size, by the issuer's own scheme alone, and without following redirects.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::uri::Scheme;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::sync::OnceCell;

use crate::https::{self, Pool, Reach};
use crate::lease::failure::{Class, Failure};

/// The largest answer that is taken, in bytes: 256 KiB. A set of keys has a few KiB.
const LARGEST: usize = 256 * 1024;

/// Asks one issuer.
pub(super) struct Fetcher {
    /// In messages: the issuer's host.
    name: String,
    scheme: Scheme,
    reach: Reach,
    timeout: Duration,
    /// Made at the first request, replaced whole where TLS failed: a CA file may be put right on disk.
    pool: Mutex<Arc<OnceCell<Pool>>>,
}

/// What the issuer answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Fetcher {
    /// For the issuer with this URL: `https`, or where `loopback_http` says so, `http` to this machine.
    pub(super) fn new(
        url: &str,
        reach: Reach,
        loopback_http: bool,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let wrong = |why: &str| Err(Failure::new(Class::Permanent, format!("the issuer {url:?} {why}")));
        let Ok(uri) = url.parse::<Uri>() else { return wrong("is not a URL") };
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return wrong("is not a whole URL");
        };
        if *scheme == Scheme::HTTP && !loopback_http {
            return wrong("is to be reached by https (allow_loopback_http is for development)");
        }
        let (name, scheme) = (authority.to_string(), scheme.clone());
        let fetcher = Self { name, scheme, reach, timeout, pool: Mutex::default() };
        fetcher.uri(url)?;
        Ok(fetcher)
    }

    /// A URL that may be asked: of the issuer's own scheme, and with `http` on this machine.
    pub(super) fn uri(&self, url: &str) -> Result<Uri, Failure> {
        let wrong = |why: &str| Err(Failure::new(Class::Permanent, format!("{url:?} {why}")));
        let Ok(uri) = url.parse::<Uri>() else { return wrong("is not a URL") };
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return wrong("is not a whole URL");
        };
        if authority.as_str().contains('@') {
            return Err(Failure::new(Class::Permanent, "a URL with a user in it is not asked"));
        }
        if *scheme != self.scheme || (*scheme != Scheme::HTTPS && *scheme != Scheme::HTTP) {
            return wrong("is not reached as its issuer is");
        }
        if *scheme == Scheme::HTTP && !is_loopback(authority.host()) {
            return wrong("is plain http, which may not leave the machine");
        }
        Ok(uri)
    }

    /// The issuer's host, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Asks for a JSON document.
    pub(super) async fn get(&self, url: &str) -> Result<Answer, Failure> {
        let request = Request::get(self.uri(url)?);
        self.send(request, Bytes::new(), url).await
    }

    /// Posts a form.
    pub(super) async fn post(&self, url: &str, headers: HeaderMap, form: Bytes) -> Result<Answer, Failure> {
        let mut request = Request::post(self.uri(url)?);
        if let Some(own) = request.headers_mut() {
            own.extend(headers);
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            own.insert(http::header::CONTENT_TYPE, form);
        }
        self.send(request, form, url).await
    }

    async fn send(&self, request: http::request::Builder, body: Bytes, url: &str) -> Result<Answer, Failure> {
        let request = request
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("tenure/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|_| {
                Failure::new(Class::Permanent, format!("the request to {url} could not be built"))
            })?;
        match tokio::time::timeout(self.timeout, self.answered(request, url)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::new(
                Class::Transient,
                format!("no complete answer from {url} within {:?}", self.timeout),
            )),
        }
    }

    async fn answered(&self, request: Request<Full<Bytes>>, url: &str) -> Result<Answer, Failure> {
        let cell = Arc::clone(&self.pool.lock().unwrap_or_else(PoisonError::into_inner));
        let https = self.scheme == Scheme::HTTPS;
        let pool = cell.get_or_try_init(|| https::pool(&self.reach, https)).await?;
        let response = pool.request(request).await.map_err(|error| {
            let trouble = https::trouble(&error, "the issuer");
            if trouble.tls {
                *self.pool.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
            }
            Failure::new(trouble.class, format!("cannot ask {url}: {}", trouble.message))
        })?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(refusal(head.status, &head.headers, url));
        }
        let body = Limited::new(body, LARGEST).collect().await.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                let most = LARGEST / 1024;
                Failure::new(Class::Transient, format!("the answer from {url} is larger than {most} KiB"))
            } else {
                Failure::new(
                    Class::Transient,
                    format!("the answer from {url} broke off: {}", https::innermost(&*error)),
                )
            }
        })?;
        Ok(Answer { headers: head.headers, body: body.to_bytes() })
    }
}

fn refusal(status: StatusCode, headers: &HeaderMap, url: &str) -> Failure {
    let (class, cure) = match status.as_u16() {
        300..=399 => {
            (Class::Permanent, " with a redirect, which is not followed: configure the URL that answers")
        }
        401 | 403 => (Class::Permanent, ": it does not accept how we ask"),
        404 => (Class::Permanent, ": there is nothing; is the issuer's URL right?"),
        408 | 425 | 429 | 500..=599 => (Class::Transient, ""),
        _ => (Class::Permanent, ""),
    };
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Failure {
        status: Some(status.as_u16()),
        retry_after: seconds.map(Duration::from_secs),
        ..Failure::new(class, format!("{url} answered {}{cure}", status.as_u16()))
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_issuer_may_be_is_asked() {
        let made = |url, loopback| Fetcher::new(url, Reach::default(), loopback, Duration::from_secs(5));
        for (url, loopback, good) in [
            ("https://id.example.com", false, true),
            ("https://id.example.com/realms/a/", true, true),
            ("http://127.0.0.1:8080", true, true),
            ("http://[::1]:8080", true, true),
            ("http://localhost", true, true),
            ("http://127.0.0.1:8080", false, false),
            ("http://id.example.com", true, false),
            ("http://127.0.0.1.example.com", true, false),
            ("https://user:canary@id.example.com", false, false),
            ("ftp://id.example.com", true, false),
            ("id.example.com", true, false),
            ("", true, false),
        ] {
            let made = made(url, loopback);
            assert_eq!(made.is_ok(), good, "{url}");
            assert!(!made.err().is_some_and(|failure| failure.message.contains("canary@")));
        }
        let secure = made("https://id.example.com", true).unwrap();
        assert!(secure.uri("https://keys.example.com/jwks").is_ok());
        assert!(secure.uri("http://127.0.0.1/jwks").is_err(), "an https issuer's keys come by https");
        let local = made("http://127.0.0.1:1", true).unwrap();
        assert!(local.uri("http://169.254.169.254/latest").is_err());
        assert!(local.uri("file:///etc/passwd").is_err());
    }
}
