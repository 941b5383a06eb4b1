// Reads secrets from the broker beside the function, for the execution that the event names.
"use strict";

const http = require("node:http");

const SOCKET = process.env.TENURE_SOCKET || "/tmp/tenure/tenure.sock";

/** The secret at `path`, such as database/creds/orders, good for as long as the function may take. */
exports.read = (path, event, context) => {
  const left = context.getRemainingTimeInMillis();
  const headers = { "X-Tenure-Invocation": context.awsRequestId };
  if (event.execution) {
    headers["X-Tenure-Execution"] = event.execution.arn;
    headers["X-Tenure-State"] = Buffer.from(event.execution.state).toString("latin1");
    headers["X-Tenure-Attempt"] = String(event.execution.attempt);
  } else {
    headers["X-Tenure-Min-Ttl"] = `${Math.floor(left / 1000)}s`;
  }
  return new Promise((resolve, reject) => {
    // A connection that is kept open may be gone after the function was frozen.
    const options = { socketPath: SOCKET, path: `/v1/${path}`, headers, agent: false, timeout: left };
    const request = http.get(options, (response) => {
      const chunks = [];
      response.on("error", reject).on("data", (chunk) => chunks.push(chunk));
      response.on("end", () => {
        const answer = JSON.parse(Buffer.concat(chunks));
        if (response.statusCode === 200) resolve(answer.data);
        else reject(new Error(`${answer.error ?? response.statusCode}: ${answer.errors[0]}`));
      });
    });
    request.on("error", reject).on("timeout", () => request.destroy(new Error("the broker did not answer")));
  });
};
