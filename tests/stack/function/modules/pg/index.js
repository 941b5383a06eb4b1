// What the example uses of `pg`, by PostgreSQL's own client: the tests need nothing from npm.
"use strict";

const { execFile } = require("node:child_process");

exports.Client = class Client {
  constructor({ user, password }) {
    this.env = { ...process.env, PGUSER: user, PGPASSWORD: password };
  }

  async connect() {}

  query(text) {
    return new Promise((resolve, reject) => {
      execFile(process.env.PSQL, ["-XAtc", text], { env: this.env }, (error, out) =>
        error ? reject(error) : resolve({ rows: [{ one: out.trim() }] }),
      );
    });
  }

  async end() {}
};
