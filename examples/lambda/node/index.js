// A function whose database credential lives as long as its work.
//
// PGHOST, PGPORT and PGDATABASE say where the database is; there is no user and no password.
"use strict";

const { Client } = require("pg");
const broker = require("./broker");

const PATH = process.env.SECRET_PATH || "database/creds/orders";

exports.handler = async (event, context) => {
  const login = await broker.read(PATH, event, context);
  const database = new Client({ user: login.username, password: login.password });
  await database.connect();
  try {
    const { rows } = await database.query("SELECT 1 AS one");
    return { one: Number(rows[0].one), user: login.username };
  } finally {
    await database.end();
  }
};
