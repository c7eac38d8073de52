// The small frame of the Node scripts: cases, their verdicts, orders to the broker.
import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';

export const env = process.env;
export const peer = env.PEER ?? 'polymq';
export { assert };

const registered = [];
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const limitMs = 80_000;

export function test(name, run) {
  registered.push([name, run]);
}

/** Asks the test to kill, restart or cut; resolves when that is done. */
export async function ctl(order) {
  console.log(`ctl ${order}`);
  const { value } = await answers.next();
  if (value !== 'done') throw new Error(`the order ${order} was not answered`);
}

/** Rejects when the promise takes longer than any healthy broker would. */
export function within(promise, what, limit = limitMs) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not in time: ${what}`)), limit);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

export function once(emitter, event) {
  return within(
    new Promise((resolve) => emitter.once(event, (...values) => resolve(values))),
    `event ${event}`,
  );
}

/** A queue of values that can be awaited one by one. */
export class Inbox {
  #values = [];
  #waiting = [];

  push(value) {
    const next = this.#waiting.shift();
    if (next) next(value);
    else this.#values.push(value);
  }

  next(what = 'a message') {
    if (this.#values.length > 0) return Promise.resolve(this.#values.shift());
    return within(new Promise((resolve) => this.#waiting.push(resolve)), what);
  }

  async take(count) {
    const taken = [];
    while (taken.length < count) taken.push(await this.next(`message ${taken.length} of ${count}`));
    return taken;
  }
}

export async function main() {
  let failures = 0;
  for (const [name, run] of registered) {
    try {
      await within(Promise.resolve(run()), name);
      console.log(`ok ${name}`);
    } catch (error) {
      failures += 1;
      console.log(`not ok ${name}: ${String(error.message).replaceAll(/\s+/g, ' ')}`);
      console.error(error);
    }
  }
  process.exit(failures > 0 ? 1 : 0);
}
