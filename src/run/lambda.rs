//! Where a run is Lambda's: the execution environment, and the invocations that it serves.

/// An execution environment of a Lambda function, or one of its invocations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lambda {
    /// The function: its name, or for an invocation the ARN that was invoked.
    pub function: Box<str>,
    /// Its version: `$LATEST`, or a number.
    pub version: Box<str>,
    /// The log stream of the environment, which tells it from all others.
    pub log_stream: Box<str>,
    /// The request id of the invocation; `None` for the environment itself.
    pub invocation: Option<Box<str>>,
    /// The X-Ray trace header of the invocation: `Root=1-…;Parent=…;Sampled=1`.
    pub trace: Option<Box<str>>,
}

impl Lambda {
    /// What is said of it, under the names that the metadata of run tokens and the audit log give it.
    pub fn facts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let always = [
            ("function", &*self.function),
            ("function_version", &*self.version),
            ("log_stream", &*self.log_stream),
        ];
        let invocation = [("invocation", self.invocation.as_deref()), ("trace", self.trace.as_deref())];
        let invocation = invocation.into_iter().filter_map(|(name, value)| Some((name, value?)));
        always.into_iter().chain(invocation).filter(|(_, value)| !value.is_empty())
    }
}

/// An invocation that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Its request id.
    pub request: Box<str>,
    /// The ARN that was invoked: with the version or the alias, where one was named.
    pub function_arn: Option<Box<str>>,
    /// Its X-Ray trace header.
    pub trace: Option<Box<str>>,
}
