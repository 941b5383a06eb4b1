//! A workload that registers runs, reads as them and ends them, on one connection that it keeps.

use super::load::{self, Stream, Transport};
use super::process::Server;
use super::{Failed, PATH};

/// What is registered, as a Step Functions state says it of itself; `number` tells runs apart.
pub(crate) fn registration(number: &str, task_token: &str) -> Vec<u8> {
    let token = match task_token {
        "" => String::new(),
        token => format!(r#","task_token":"{token}""#),
    };
    post(&format!(
        r#"{{"execution_arn":"arn:aws:states:eu-west-1:111122223333:execution:checkout:order-{number}","state":"Charge","attempt":0,"timeout_seconds":3000,"tags":{{"git_commit":"9e87d6e0b4"}}{token}}}"#
    ))
}

fn post(body: &str) -> Vec<u8> {
    format!(
        "POST /tenure/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A run, as its registrant knows it.
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) handle: String,
}

/// A connection to the broker's Unix socket.
pub(crate) struct Client(Box<dyn Stream>);

impl Client {
    pub(crate) fn new(server: &Server) -> Result<Self, Failed> {
        Ok(Self(load::connect(server, Transport::Unix)?))
    }

    pub(crate) fn register(&mut self, number: usize, task_token: &str) -> Result<Run, Failed> {
        self.registered(&registration(&format!("{number:012}"), task_token))
    }

    /// A run of which nothing is said.
    pub(crate) fn register_plain(&mut self) -> Result<Run, Failed> {
        self.registered(&post("{}"))
    }

    fn registered(&mut self, registration: &[u8]) -> Result<Run, Failed> {
        let answer = self.answer(registration)?;
        let text = std::str::from_utf8(&answer)?;
        let of = |name: &str| -> Option<String> {
            let (_, rest) = text.split_once(&format!("\"{name}\":\""))?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        let run = of("id").zip(of("handle")).map(|(id, handle)| Run { id, handle });
        Ok(run.ok_or("a registration's answer names no run")?)
    }

    /// Reads as a run; `None` reads as the process's own.
    pub(crate) fn read(&mut self, run: Option<&Run>, path: &str) -> Result<(), Failed> {
        let handle = run.map(|run| run.handle.as_str());
        load::ask(&mut *self.0, &load::request(path, handle)).map(drop)
    }

    pub(crate) fn end(&mut self, run: &Run) -> Result<(), Failed> {
        let request = format!("DELETE /tenure/runs/{} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", run.id);
        load::ask(&mut *self.0, request.as_bytes()).map(drop)
    }

    /// What a registration is answered with, byte for byte.
    pub(crate) fn answer(&mut self, registration: &[u8]) -> Result<Vec<u8>, Failed> {
        load::ask(&mut *self.0, registration)
    }
}

/// A path that was not read before.
pub(crate) fn path(number: usize) -> String {
    format!("{PATH}-{number:05}")
}
