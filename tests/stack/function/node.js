// Lambda's runtime for Node, as far as a handler sees it: `index.handler`, from the folder that is named.
"use strict";

const http = require("node:http");
const path = require("node:path");

const BASE = `http://${process.env.AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation`;

const ask = (method, url, body) =>
  new Promise((resolve, reject) => {
    const request = http.request(url, { method, agent: false }, (response) => {
      const chunks = [];
      response.on("error", reject).on("data", (chunk) => chunks.push(chunk));
      response.on("end", () => resolve({ headers: response.headers, body: Buffer.concat(chunks) }));
    });
    request.on("error", reject).end(body);
  });

(async () => {
  const { handler } = require(path.resolve(process.argv[2], "index.js"));
  for (;;) {
    const { headers, body } = await ask("GET", `${BASE}/next`);
    const awsRequestId = headers["lambda-runtime-aws-request-id"];
    const deadline = Number(headers["lambda-runtime-deadline-ms"]);
    const context = { awsRequestId, getRemainingTimeInMillis: () => Math.max(0, deadline - Date.now()) };
    let end = "response";
    let answer;
    try {
      answer = await handler(JSON.parse(body), context);
    } catch (error) {
      [end, answer] = ["error", { errorType: error.name, errorMessage: error.message }];
    }
    await ask("POST", `${BASE}/${awsRequestId}/${end}`, JSON.stringify(answer));
  }
})();
