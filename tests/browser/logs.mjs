// Logs that a browser has trouble with, as broker, Vault and Step Functions would write them: large ones, hostile names,
// nothing at all, a week and a millisecond. The real ones come from the real parts.

import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const ROLE = "arn:aws:iam::123456789012:role/orders-task";

/** Names that want to be more than names, or that no line is long enough for. */
const HOSTILE = [
  "<script>document.title='ran'</script>",
  "\"><img src=x onerror=\"document.title='ran'\">",
  "'; DROP TABLE runs; --",
  "</title></svg></style><style>*{display:none}</style>",
  "javascript:alert(1)",
  "\u202egnp.exe\u202c \u0000\u001b[31mred\n\u2028line",
  "שלום עולם",
  "مرحبا بالعالم",
  "🔥👩‍👩‍👧‍👦🏳️‍🌈🔥",
  "Z̷̢̛a̸l̵g̶o̴̧",
  "W".repeat(300),
  "database/creds/" + "orders-".repeat(40),
  "日本語の名前",
  "﷽﷽﷽﷽﷽﷽",
  "&lt;b&gt;&amp;&#x27;",
  " ",
];

const arn = (machine, name) => `arn:aws:states:eu-west-1:123456789012:execution:${machine}:${name}`;

/** What a run is, as its token's metadata has it. */
const metadata = ({ id, kind, execution_arn, state, attempt, standing, parents, subject }) => ({
  run: id, kind, boot: "b1", execution_arn, state, attempt: attempt?.toString(), verified: standing, parent_execution_arn: parents?.[0],
  subject: subject?.id, subject_kind: subject?.kind, subject_issuer: subject?.issuer, subject_assurance: subject?.assurance,
});

/** The logs of one broker and of Vault, and a history for each execution. */
class World {
  broker = [];
  vault = [];
  histories = new Map();
  requests = 0;

  constructor(start = Date.UTC(2026, 0, 1), bootAt = 0) {
    this.start = start;
    const run = { id: "run-00", kind: "process" };
    this.say(bootAt, "boot", "done", { detail: "tenure" });
    const request = this.request();
    const auth = { accessor: "login-1", display_name: "aws-orders-task/task-1", metadata: { canonical_arn: ROLE } };
    this.ask(bootAt, request, "auth/aws/login", { auth, response: { auth } });
    this.say(bootAt, "login", "done", { run, request, expires: this.at(bootAt + HOUR) });
  }

  at(millis) {
    return new Date(this.start + millis).toISOString();
  }

  request() {
    this.requests += 1;
    return `b1-${this.requests}`;
  }

  say(millis, event, outcome, members = {}) {
    this.broker.push([millis, { event, outcome, ...members }]);
  }

  ask(millis, request, path, members, operation = "update") {
    const headers = request ? { "x-tenure-request": [request] } : {};
    this.vault.push([millis, { ...members, request: { operation, path, headers, remote_address: "10.0.0.1", ...members.request } }]);
  }

  state(execution, name, from, to) {
    if (!this.histories.has(execution)) this.histories.set(execution, []);
    this.histories.get(execution).push([from, to, name]);
  }

  /** A run that begins, mints and reads, is refused what it may not have, ends, and is revoked. */
  work(from, span, run, { leases = ["database/creds/orders"], denied = [], reads = 2, ended = true, confirmed = true, tail = 10 } = {}) {
    const at = (part) => from + Math.round(span * part);
    const of = { accessor: `of-${run.id}`, metadata: metadata(run) };
    const token = { auth: { ...of, display_name: "token" } };
    this.say(from, "run.register", "granted", { run, policy: "run.rule[0]", expires: this.at(from + span * 4) });
    const start = this.request();
    this.ask(from, start, "auth/token/create/run", { auth: { accessor: "login-1" }, response: { auth: of } });
    this.say(from, "run.start", "done", { run, request: start, expires: this.at(from + span * 4), detail: "run" });
    for (const [number, path] of leases.entries()) {
      const [lease_id, request] = [`${path}/${run.id}-${number}`, this.request()];
      const minted = { run, path, request, lease_id, expires: this.at(from + span * 3) };
      const mintedAt = at(0.1 + (0.4 * number) / leases.length);
      this.ask(mintedAt, request, path, { ...token, response: { secret: { lease_id } } }, "read");
      this.say(mintedAt, "mint", "done", minted);
      for (let read = 0; read < reads; read += 1) {
        this.say(at(0.2 + (0.6 * (read + number)) / (reads + leases.length)), "read", "granted",
          { ...minted, source: read ? "cache" : "vault", caller: { via: "unix", uid: 1000, gid: 1000 } });
      }
    }
    for (const [number, path] of denied.entries()) {
      this.say(at(0.3 + (0.5 * number) / denied.length), "read", "denied",
        { run, path, class: "policy", reason: "no rule of this run allows it", caller: { via: "unix", uid: 1000, gid: 1000 } });
    }
    if (!ended) return;
    this.say(from + span, "run.end", "done", { run, detail: "it was ended" });
    const request = this.request();
    this.ask(from + span, request, "auth/token/revoke-self", token);
    this.say(from + span, "revoke.requested", "done", { run, request, detail: "run token" });
    if (confirmed) this.say(from + span + tail, "revoke.confirmed", "done", { run, detail: `run token and ${leases.length} leases` });
  }

  /** A client with the brokers' role and without a broker. */
  bypass(millis, accessor = "stolen") {
    const auth = { accessor, display_name: "aws-orders-task/task-1", metadata: { canonical_arn: ROLE } };
    this.ask(millis, null, "auth/aws/login", { auth, response: { auth }, request: { remote_address: "10.9.9.9" } });
    this.ask(millis, null, "database/creds/orders-charge", { auth, response: { secret: { lease_id: `database/creds/orders-charge/${accessor}` } } }, "read");
  }

  write(folder, names = ["broker.jsonl", "vault.log"]) {
    fs.mkdirSync(folder, { recursive: true });
    const inOrder = (lines) => lines.map((line, number) => [...line, number]).sort((a, b) => a[0] - b[0] || a[2] - b[2]);
    let [seq, prev, log] = [0, "0".repeat(64), ""];
    for (const [millis, { event, outcome, run, ...rest }] of inOrder(this.broker)) {
      seq += 1;
      // The writer's own order of members; a line's hash covers all that stands before it.
      const line = { v: 1, time: this.at(millis), boot: "b1", event, outcome, run };
      for (const name of ["caller", "path", "source", "request", "lease_id", "expires", "policy", "reason", "class", "detail"]) line[name] = rest[name];
      const content = JSON.stringify({ ...line, seq, prev }).slice(0, -1);
      prev = createHash("sha256").update(content).digest("hex");
      log += `${content},"hash":"${prev}"}\n`;
    }
    fs.writeFileSync(path.join(folder, names[0]), log);
    const said = inOrder(this.vault).map(([millis, line], number) => {
      line.request.id = `id-${number}`;
      return JSON.stringify({ time: this.at(millis), type: "response", ...line });
    });
    fs.writeFileSync(path.join(folder, names[1]), `${said.join("\n")}\n`);
    let number = 0;
    for (const [execution, states] of this.histories) {
      const events = states.flatMap(([from, to, name]) => [
        { timestamp: this.at(from), type: "TaskStateEntered", stateEnteredEventDetails: { name } },
        { timestamp: this.at(to), type: "TaskStateExited", stateExitedEventDetails: { name } },
      ]);
      events.sort((a, b) => a.timestamp.localeCompare(b.timestamp));
      number += 1;
      // A history is told by its file's name whose it is, where it does not say so itself.
      const name = execution.split(":").at(-1);
      const file = /^[\w-]{1,80}$/.test(name) ? `${name}.json` : `history-${number}`;
      fs.writeFileSync(path.join(folder, file), JSON.stringify({ events: events.map((event, id) => ({ id: id + 1, ...event })) }));
    }
  }
}

const run = (id, execution_arn, state, more = {}) =>
  ({ id, kind: "state", execution_arn, state, attempt: 0, standing: "verified", ...more });
const ada = { id: "ada", kind: "person", issuer: "https://id.example.com", assurance: "verified" };

/** Retries, refusals, an outage, what never ended and what was never confirmed: each kind of mark and bar. */
function retries() {
  const world = new World();
  const [orders, charge] = [arn("orders", "0f1e"), arn("charge", "77aa")];
  world.state(orders, "Reserve", 1_000, 95_000);
  world.state(orders, "Payment", 96_000, 260_000);
  world.state(charge, "Charge", 100_000, 250_000);
  for (let attempt = 0; attempt < 4; attempt += 1) {
    world.work(2_000 + attempt * 23_000, 15_000, run(`run-1${attempt}`, orders, "Reserve", { attempt, subject: ada }),
      { leases: ["database/creds/orders-reserve"], denied: attempt < 2 ? ["kv/data/charge/key"] : [] });
  }
  const charged = run("run-20", charge, "Charge", { parents: [orders], subject: { ...ada, assurance: "asserted" } });
  world.work(101_000, 120_000, charged,
    { leases: ["database/creds/orders-charge", "kv/data/charge/key", "aws/sts/charge"], denied: Array(14).fill("database/creds/orders-reserve"), confirmed: false });
  world.say(140_000, "renew", "failed", { run: charged, path: "database/creds/orders-charge", class: "outage", reason: "upstream did not answer in time", detail: "tried again in 2 s" });
  world.work(150_000, 60_000, run("run-21", charge, "Charge", { attempt: 1, standing: "asserted", parents: [orders] }), { leases: ["kv/data/charge/key"], ended: false });
  world.work(30_000, 200_000, { id: "run-30", kind: "task" }, { leases: ["kv/data/shared/config"] });
  world.bypass(180_000);
  world.say(300_000, "shutdown", "done");
  return world;
}

function many() {
  const world = new World();
  for (let number = 0; number < 130; number += 1) {
    const execution = arn("orders", `e-${String(number >> 2).padStart(4, "0")}`);
    const from = number * 20_000;
    world.work(from, 15_000, run(`run-${String(number).padStart(5, "0")}`, execution, `Step${number % 4}`, { subject: { ...ada, id: `person-${number % 40}` } }),
      { leases: ["database/creds/orders", `kv/data/item/${number % 50}`], denied: number % 7 ? [] : ["kv/data/other"], reads: 1, confirmed: number % 50 !== 3 });
    if (number % 4 === 0) world.state(execution, "Step0", from, from + 18_000);
    if (number % 60 === 5) world.bypass(from, `stolen-${number}`);
  }
  return world;
}

function hostile() {
  const world = new World();
  for (const [number, name] of HOSTILE.entries()) {
    const other = HOSTILE[(number + 3) % HOSTILE.length];
    const subject = { id: name, kind: "person", issuer: other, assurance: number % 2 ? "verified" : "asserted" };
    const execution = number % 3 ? arn("orders", name) : name;
    world.work(number * 1_000, 5_000, run(number % 4 ? `run-${number}` : `run-${name}`, execution, name, { subject, standing: "asserted" }),
      { leases: [name, other], denied: [other], ended: number % 3 > 0 });
    world.state(execution, name, number * 1_000, number * 1_000 + 4_000);
    world.say(number * 1_000, "renew", "failed", { run: run(`run-${number}`, execution, name), path: name, reason: other, detail: name });
    world.bypass(number * 1_000, name);
  }
  return world;
}

function week() {
  const world = new World();
  const execution = arn("weekly", "long");
  world.state(execution, "Wait", 0, 7 * DAY);
  for (let day = 0; day < 7; day += 1) {
    world.work(day * DAY + 8 * HOUR, 2_000, run(`run-day-${day}`, execution, "Daily", { subject: ada }));
    world.work(day * DAY + 9 * HOUR, day * HOUR + MINUTE, run(`run-long-${day}`, execution, "Hourly", { subject: ada }), { leases: ["kv/data/report"] });
  }
  return world;
}

/** Within one millisecond or at one instant: the drawing has no width of time to go by. */
function short(span) {
  const world = new World(Date.UTC(2026, 5, 1, 12), 0);
  const execution = arn("orders", "fast");
  world.state(execution, "Reserve", 0, span);
  for (const number of [1, 2, 3]) world.work(0, span, run(`run-${number}`, execution, "Reserve"), { leases: ["kv/data/a", "kv/data/b"], tail: 0 });
  return world;
}

/** Writes all of them below `folder`: for each, where its logs are and what is asked of them. */
export function generate(folder) {
  fs.rmSync(folder, { recursive: true, force: true });
  const at = (name) => path.join(folder, name);
  const cases = [];
  const add = (name, world, more = {}) => {
    world.write(at(name), more.names);
    cases.push({ name, logs: at(name), select: more.select ?? [] });
  };
  // What takes longest comes first.
  add("many", many());
  add("retries", retries());
  add("hostile", hostile(), { names: ["<b>broker & 'co'.jsonl", `vault-${"long-".repeat(40)}.log`], select: ["--since", "2025-12-31T00:00:00Z"] });
  fs.writeFileSync(path.join(at("hostile"), "torn"), `{"v":1,"time":"2026\nplain <script>text</script>\n{"a":1}\n`);
  add("nothing", retries(), { select: ["--until", "2001-01-01T00:00:00Z"] });
  add("week", week());
  add("instant", short(0));
  add("millisecond", short(1));
  return cases;
}
