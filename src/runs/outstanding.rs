//! The tokens that an end has to see gone, by name: for whoever reads why it did not suffice.

use std::sync::Arc;

use super::Runs;
use super::work::Work;
use crate::lease::keeper::TokenKeeper;

/// A token that was there when it was asked for.
pub struct Outstanding {
    what: String,
    keeper: TokenKeeper,
}

impl Outstanding {
    /// Whether it is gone by now: revoked and seen to be, or ended by itself.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.keeper.view().ended
    }
}

impl std::fmt::Display for Outstanding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl Runs {
    /// The tokens that there are, to be seen gone.
    #[must_use]
    pub fn outstanding(&self) -> Vec<Outstanding> {
        let of = |keeper: &TokenKeeper, what: String| {
            let view = keeper.view();
            let lent = view.held.as_ref().is_some_and(|held| held.payload.lent);
            (view.seq > 0 && !view.ended && !lent).then(|| {
                let about = view.held.as_ref().map(|held| {
                    format!(
                        " (accessor {}), which ends by itself at {}",
                        held.payload.accessor,
                        held.ends().rfc3339()
                    )
                });
                Outstanding { what: what + &about.unwrap_or_default(), keeper: keeper.clone() }
            })
        };
        let mut shared: Vec<Arc<Work>> = Vec::new();
        let mut outstanding = Vec::new();
        for active in self.all() {
            let Some((work, (_, token))) = active.work().and_then(|work| Some((work, work.token.as_ref()?)))
            else {
                continue;
            };
            if active.shares() {
                if shared.iter().any(|other| Arc::ptr_eq(other, work)) {
                    continue;
                }
                shared.push(Arc::clone(work));
            }
            outstanding.extend(of(token, format!("the token of the run {}", work.context.run.id)));
        }
        outstanding.extend(of(&self.login, "the login token".to_owned()));
        outstanding
    }
}
