//! The head of the audit log's chain, where we cannot change it: in upstream's own log.
//!
//! Each run token's metadata has it. Beside that it is sent as a header that upstream logs, at an interval and at the end, so
//! that it is known for how long a tail that was cut could go unnoticed.

use std::sync::Arc;
use std::time::Duration;

use super::Runs;
use super::tokens::with_login;
use crate::audit::Event;

impl Runs {
    /// Anchors the chain every so often, while it grows.
    pub(super) async fn keep_anchored(self: Arc<Self>, every: Duration) {
        let mut ends = self.login.watch();
        // The line that tells of an anchor is nothing to anchor by itself.
        let mut anchored = 0;
        loop {
            let ended = tokio::time::timeout(every, ends.wait_for(|view| view.ending || view.ended)).await;
            if ended.is_ok() {
                return;
            }
            if self.common.audit.head().seq > anchored + 1 && self.anchor(every).await {
                anchored = self.common.audit.head().seq;
            }
        }
    }

    /// Has upstream log where the chain ends now. Returns whether it has.
    pub(super) async fn anchor(&self, patience: Duration) -> bool {
        let context = &self.own_work().context;
        let head = context.audit.head();
        let mut call = context.call();
        call.chain =
            Some(format!("{}:{}:{}", context.boot.id(), head.pin(), context.audit.began().pin()).into());
        let asked = with_login(&self.login, context.patience, |login| {
            let call = call.clone();
            async move { context.source.lookup_token(call, &login).await }
        });
        let Ok(result) = tokio::time::timeout(patience, asked).await else { return false };
        let detail = format!("seq {}", head.seq);
        context.note(Event::AuditAnchor, &call, &result, |entry, ()| entry.detail(&detail));
        result.is_ok()
    }
}
