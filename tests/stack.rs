//! The broker's own binary against the real stack of `tests/stack`: Vault, OpenBao, an STS that checks signatures, and
//! PostgreSQL. What is missing is a failure that says what to install, never a test that is passed over.
#![allow(
    clippy::disallowed_methods,
    reason = "real processes live in real time: there is no clock to pass to them"
)]

#[macro_use]
#[path = "stack/harness.rs"]
mod harness;
#[path = "stack/broker.rs"]
mod broker;
#[path = "stack/database.rs"]
mod database;
#[path = "stack/http.rs"]
mod http;
#[path = "stack/proxy.rs"]
mod proxy;
#[path = "stack/readers.rs"]
mod readers;
mod schema;
#[path = "stack/workflow.rs"]
mod workflow;

#[path = "lambda/aws.rs"]
#[allow(dead_code, reason = "it is another suite's; this one tries less")]
mod aws;

#[path = "stack/anchors.rs"]
mod anchors;
#[path = "stack/answers.rs"]
mod answers;
#[path = "stack/athena.rs"]
mod athena;
#[path = "stack/clients.rs"]
mod clients;
#[path = "stack/disk.rs"]
mod disk;
#[path = "stack/doctor.rs"]
mod doctor;
#[path = "stack/doors.rs"]
mod doors;
#[path = "stack/ends.rs"]
mod ends;
#[path = "stack/faults.rs"]
mod faults;
#[path = "stack/lambda.rs"]
mod lambda;
#[path = "stack/leases.rs"]
mod leases;
#[path = "stack/login.rs"]
mod login;
#[path = "stack/logins.rs"]
mod logins;
#[path = "stack/namespaces.rs"]
mod namespaces;
#[path = "stack/records.rs"]
mod records;
#[path = "stack/runs.rs"]
mod runs;
#[path = "stack/starts.rs"]
mod starts;
#[path = "stack/subjects.rs"]
mod subjects;
#[path = "stack/tls.rs"]
mod tls;
#[path = "stack/tokens.rs"]
mod tokens;
#[path = "stack/trace.rs"]
mod trace;
#[path = "stack/tutorial.rs"]
mod tutorial;
#[path = "stack/values.rs"]
mod values;
