// graphile-worker's child process: the same commands as __main__.py. The settings are those of its page on performance.
"use strict";
const readline = require("readline");
const { Pool } = require("pg");
const { run, runMigrations, Logger } = require("graphile-worker");

const [host, port, user, database] = process.argv[2].split(" ").map((part) => part.split("=")[1]);
const CONCURRENCY = 24;
const pgPool = new Pool({ host, port: Number(port), user, database, max: CONCURRENCY + 1 });
const logger = new Logger(() => (level, message) => level === "error" && console.error(message));

const commands = {
  create: () => runMigrations({ preset: { worker: { logger } }, pgPool }),
  async work() {
    const runner = await run({
      preset: {
        worker: {
          concurrentJobs: CONCURRENCY,
          maxPoolSize: CONCURRENCY + 1,
          localQueue: { size: 500, refetchDelay: { durationMs: 10 } },
          completeJobBatchDelay: 0,
          failJobBatchDelay: 0,
          logger,
        },
      },
      pgPool,
      taskList: { noop: () => {} },
    });
    await runner.promise;
  },
};

pgPool.on("error", () => {});
const lines = readline.createInterface({ input: process.stdin });
lines.on("close", () => process.exit(0));
lines.on("line", async (line) => {
  const [command, given] = JSON.parse(line);
  let answer;
  try {
    answer = { answer: (await commands[command](given)) ?? null };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
});
