// Asks for tokens until standard input ends; prints a dot when the first is there, and a report as JSON at the end.

import { setTimeout as sleep } from 'node:timers/promises';

import { connect } from '../../tests/clients/node/broker.mjs';

const CALLERS = 8;
const PACE_MS = 20;
// A list of addresses is no host name; one name that resolves to all replicas needs no such thing.
const AUTHORITY = { 'grpc.default_authority': 'token-broker' };

const [target, keysText] = process.argv.slice(2);
const keys = JSON.parse(keysText);
const broker = connect(target, process.env.TOKEN_BROKER_API_KEY, { timeoutMs: 15_000, options: AUTHORITY });
const failed = {};
const times = [];
let stopped = false;

async function ask(number) {
  for (let turn = number; !stopped; turn += CALLERS + 1) {
    const began = performance.now();
    try {
      const answer = await broker.GetCredential({ key: keys[turn % keys.length] });
      if (answer.result !== 'credential') failed[answer.result] = (failed[answer.result] ?? 0) + 1;
    } catch (error) {
      failed[error.message] = (failed[error.message] ?? 0) + 1;
    }
    times.push(performance.now() - began);
    await sleep(PACE_MS);
  }
}

await broker.GetCredential({ key: keys[0] });
process.stdout.write('.');
process.stdin.resume();
process.stdin.on('end', () => (stopped = true));
await Promise.all(Array.from({ length: CALLERS }, (_, number) => ask(number)));
times.sort((a, b) => a - b);
const at = (share) => Number(times[Math.min(Math.floor(times.length * share), times.length - 1)].toFixed(1));
console.log(JSON.stringify({ calls: times.length, failed, p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1) }));
broker.close();
