//! Workflows: the state machines of `examples/stepfunctions`, run by the stack's interpreter, and the tutorial's worker.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::Pid;
use serde_json::{Value, json};

use crate::broker::SOON;
use crate::harness::{Server, text, wait_until};
use crate::http::{Answer, Place, request};

/// The worker of the tutorial, and the same with steps that hold their database session open.
pub(crate) const TUTORIAL: &str = "examples/stepfunctions/worker.py";
pub(crate) const HOLDING: &str = "tests/stack/holding_worker.py";

/// Activities and state machines of one test's own: tests share the interpreter, and a worker that was killed may take
/// one more task of its activity with it.
pub(crate) struct Workflow<'a> {
    pub(crate) server: &'a Server,
    pub(crate) reserve: String,
    pub(crate) charge: String,
    orders_machine: String,
    charge_machine: String,
}

impl<'a> Workflow<'a> {
    /// The tutorial's, as they stand.
    #[track_caller]
    pub(crate) fn new(server: &'a Server) -> Self {
        Self::edited(server, |_, _| {})
    }

    /// The tutorial's, with what a test changes in `orders` and `charge`: its time-outs and retries, most often.
    #[track_caller]
    pub(crate) fn edited(server: &'a Server, edit: impl FnOnce(&mut Value, &mut Value)) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let suffix = MADE.fetch_add(1, Ordering::Relaxed);
        let activity = |name: &str| {
            let made = ok(server, "CreateActivity", &json!({ "name": format!("{name}-{suffix}") }));
            text(&made["activityArn"]).to_owned()
        };
        let (reserve, charge) = (activity("reserve"), activity("charge"));
        let (mut orders_asl, mut charge_asl) = (definition("orders.asl.json"), definition("charge.asl.json"));
        edit(&mut orders_asl, &mut charge_asl);
        let machine = |name: &str, definition: &Value, filled: &[(&str, &str)]| {
            let mut definition = definition.to_string();
            for (placeholder, arn) in filled {
                definition = definition.replace(placeholder, arn);
            }
            let body = json!({
                "name": format!("{name}-{suffix}"),
                "roleArn": says(server, "role_arn"),
                "definition": definition,
            });
            text(&ok(server, "CreateStateMachine", &body)["stateMachineArn"]).to_owned()
        };
        let charge_machine = machine("charge", &charge_asl, &[("${ChargeActivityArn}", &charge)]);
        let filled = [("${ReserveActivityArn}", &*reserve), ("${ChargeStateMachineArn}", &charge_machine)];
        let orders_machine = machine("orders", &orders_asl, &filled);
        Self { server, reserve, charge, orders_machine, charge_machine }
    }

    /// Starts an execution for an order.
    #[track_caller]
    pub(crate) fn start(&self, order: u32) -> Execution<'_> {
        let input = json!({ "order": { "id": order } }).to_string();
        let body = json!({ "stateMachineArn": self.orders_machine, "input": input });
        let started = ok(self.server, "StartExecution", &body);
        Execution { workflow: self, arn: text(&started["executionArn"]).to_owned() }
    }

    /// The next task of an activity, where a test is the worker itself: its token and its input.
    #[track_caller]
    pub(crate) fn poll(&self, activity: &str) -> (String, Value) {
        let given = ok(self.server, "GetActivityTask", &json!({ "activityArn": activity }));
        if given["taskToken"].is_null() {
            let body = json!({ "stateMachineArn": self.orders_machine });
            let listed = ok(self.server, "ListExecutions", &body);
            let executions = listed["executions"].as_array().into_iter().flatten();
            let histories: Vec<_> = executions
                .map(|one| Execution { workflow: self, arn: text(&one["executionArn"]).to_owned() }.history())
                .collect();
            panic!("no task of {activity}: {histories:#?}");
        }
        let input = serde_json::from_str(text(&given["input"])).expect("an input of JSON");
        (text(&given["taskToken"]).to_owned(), input)
    }

    #[track_caller]
    pub(crate) fn succeed(&self, token: &str, output: &Value) {
        ok(self.server, "SendTaskSuccess", &json!({ "taskToken": token, "output": output.to_string() }));
    }

    #[track_caller]
    pub(crate) fn fail(&self, token: &str, error: &str) {
        ok(self.server, "SendTaskFailure", &json!({ "taskToken": token, "error": error }));
    }

    /// The name of the error that a heartbeat is answered with; nothing while the task is under way.
    #[track_caller]
    pub(crate) fn heartbeat(&self, token: &str) -> Option<String> {
        let answer = call(self.server, "SendTaskHeartbeat", &json!({ "taskToken": token }));
        (answer.status != 200).then(|| text(&answer.json()["__type"]).to_owned())
    }
}

/// One execution of a workflow.
pub(crate) struct Execution<'a> {
    workflow: &'a Workflow<'a>,
    pub(crate) arn: String,
}

impl Execution<'_> {
    /// All that `DescribeExecution` says.
    #[track_caller]
    pub(crate) fn describe(&self) -> Value {
        ok(self.workflow.server, "DescribeExecution", &json!({ "executionArn": self.arn }))
    }

    /// Waits until it is in this state, and says what it came to instead if it ends otherwise.
    #[track_caller]
    pub(crate) fn wait(&self, status: &str) -> Value {
        wait_until(&format!("the execution is {status}"), SOON, || {
            let described = self.describe();
            let now = text(&described["status"]);
            assert!(now == status || now == "RUNNING", "{described}\n{:#?}", self.events());
            now == status
        });
        self.describe()
    }

    /// What it came to, once it has succeeded.
    #[track_caller]
    pub(crate) fn output(&self) -> Value {
        serde_json::from_str(text(&self.wait("SUCCEEDED")["output"])).expect("an output of JSON")
    }

    /// As somebody does who has seen enough; the nested execution is stopped with it.
    #[track_caller]
    pub(crate) fn stop(&self) {
        ok(self.workflow.server, "StopExecution", &json!({ "executionArn": self.arn }));
    }

    /// Its history, oldest first.
    #[track_caller]
    pub(crate) fn history(&self) -> Vec<Value> {
        let body = json!({ "executionArn": self.arn, "maxResults": 1000 });
        let history = ok(self.workflow.server, "GetExecutionHistory", &body);
        history["events"].as_array().cloned().unwrap_or_default()
    }

    /// The types of its history's events.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<String> {
        self.history().iter().map(|event| text(&event["type"]).to_owned()).collect()
    }

    /// The executions that it has started.
    #[track_caller]
    pub(crate) fn nested(&self) -> Vec<Execution<'_>> {
        let body = json!({ "stateMachineArn": self.workflow.charge_machine });
        let listed = ok(self.workflow.server, "ListExecutions", &body);
        let listed = listed["executions"].as_array().cloned().unwrap_or_default();
        listed
            .iter()
            .map(|one| Execution { workflow: self.workflow, arn: text(&one["executionArn"]).to_owned() })
            .filter(|one| text(&one.describe()["input"]).contains(&self.arn))
            .collect()
    }
}

/// A worker's process. It is killed when it is dropped.
pub(crate) struct Worker {
    child: Child,
    /// What it printed: lines of JSON on its standard output, its log on its standard error.
    said: Arc<Mutex<Vec<String>>>,
    log: PathBuf,
}

impl Worker {
    /// Starts `program` for both activities, with the broker's `place` (and on TCP its token file) and `more` variables.
    #[track_caller]
    pub(crate) fn start(
        workflow: &Workflow<'_>,
        program: &str,
        place: &Place,
        token_file: Option<&Path>,
        more: &[(&str, &str)],
    ) -> Self {
        let stack = &workflow.server.stack;
        let address = match place {
            Place::Unix(path) => format!("unix://{}", path.display()),
            Place::Tcp(address) => format!("http://{address}"),
        };
        let log = Path::new(text(&stack["run_dir"]))
            .join(format!("worker-{}.log", workflow.reserve.rsplit(':').next().unwrap_or_default()));
        let errors =
            std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("the worker's log");
        let mut command = Command::new(text(&stack["python"]));
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(program))
            .env_clear()
            .env("HOME", text(&stack["run_dir"]))
            // The sources' folder is not the place for what Python compiles.
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("AWS_ENDPOINT_URL_SFN", says(workflow.server, "endpoint"))
            .env("AWS_DEFAULT_REGION", says(workflow.server, "region"))
            .env("AWS_ACCESS_KEY_ID", says(workflow.server, "access_key_id"))
            .env("AWS_SECRET_ACCESS_KEY", says(workflow.server, "secret_access_key"))
            .env("PGHOST", text(&stack["postgres"]["host"]))
            .env("PGPORT", stack["postgres"]["port"].to_string())
            .env("PGDATABASE", text(&stack["postgres"]["dbname"]))
            .env("RESERVE_ACTIVITY_ARN", &workflow.reserve)
            .env("CHARGE_ACTIVITY_ARN", &workflow.charge)
            .env("TENURE_ADDR", address)
            .envs(more.iter().copied());
        if let Some(token_file) = token_file {
            command.env("TENURE_TOKEN_FILE", token_file);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("the stack's Python");
        let said = Arc::new(Mutex::new(Vec::new()));
        let stdout = child.stdout.take().expect("a pipe");
        let lines = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Self { child, said, log }
    }

    /// The lines of JSON that it has printed: those of the holding worker.
    #[track_caller]
    pub(crate) fn said(&self) -> Vec<Value> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until it has ended, and says whether in order.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> bool {
        let mut ended = None;
        wait_until("the worker has ended", SOON, || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        });
        ended.is_some_and(|status| status.success())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn says<'a>(server: &'a Server, name: &str) -> &'a str {
    text(&server.stack["stepfunctions"][name])
}

fn definition(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/stepfunctions").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).expect("the tutorial's definition")).expect("JSON")
}

/// A request to Step Functions, signed by nobody: the interpreter does not look, but takes the region from it.
#[track_caller]
fn call(server: &Server, operation: &str, body: &Value) -> Answer {
    let region = says(server, "region");
    let place =
        Place::Tcp(says(server, "endpoint").trim_start_matches("http://").parse().expect("an address"));
    let headers = [
        ("x-amz-target", &*format!("AWSStepFunctions.{operation}")),
        (
            "authorization",
            &*format!(
                "AWS4-HMAC-SHA256 Credential={}/20260101/{region}/states/aws4_request, SignedHeaders=host, Signature=0",
                says(server, "access_key_id"),
            ),
        ),
    ];
    request(&place, "POST", "/", &headers, Some(body)).expect("Step Functions answers")
}

#[track_caller]
fn ok(server: &Server, operation: &str, body: &Value) -> Value {
    let answer = call(server, operation, body);
    assert_eq!(answer.status, 200, "{operation} {body}: {}", answer.text());
    answer.json()
}
