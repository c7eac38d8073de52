// polymq.json.v1 as a browser speaks it, beside MQTT.js on the same topics and queues.
import mqtt from 'mqtt';
import WebSocket from 'ws';
import { assert, ctl, env, Inbox, main, test, within } from './cases.js';

const url = `ws://127.0.0.1:${env.HTTP_PORT}/ws/json`;
const subprotocol = 'polymq.json.v1';

/** A connection that hands answers to whoever asked, and the rest to an inbox. */
class Client {
  #next = 1;
  #asked = new Map();

  constructor(more = {}) {
    this.inbox = new Inbox();
    this.socket = new WebSocket(url, subprotocol, more);
    this.socket.on('message', (data, isBinary) => this.#take(data, isBinary));
    this.socket.on('error', () => {});
    this.closed = new Promise((resolve) => this.socket.on('close', (code) => resolve(code)));
    this.open = new Promise((resolve) => this.socket.on('open', resolve));
  }

  #take(data, isBinary) {
    const length = isBinary ? data.readUInt32BE(0) : 0;
    const said = JSON.parse(isBinary ? data.subarray(4, 4 + length) : data);
    if (isBinary) said.body = data.subarray(4 + length);
    const asked = this.#asked.get(said.re);
    if (asked) {
      this.#asked.delete(said.re);
      asked(said);
    } else {
      this.inbox.push(said);
    }
  }

  #id(resolve) {
    const id = this.#next++;
    this.#asked.set(id, resolve);
    return id;
  }

  say(op) {
    this.socket.send(JSON.stringify(op));
  }

  ask(op) {
    const answer = new Promise((resolve) => this.say({ ...op, id: this.#id(resolve) }));
    return within(answer, `the answer to ${op.op}`);
  }

  publishBinary(message, body) {
    const answer = new Promise((resolve) => {
      const json = Buffer.from(JSON.stringify({ op: 'publish', id: this.#id(resolve), message }));
      const length = Buffer.alloc(4);
      length.writeUInt32BE(json.length);
      this.socket.send(Buffer.concat([length, json, body]));
    });
    return within(answer, 'a confirm');
  }

  async settle(sub, tags, outcome, more = {}) {
    const said = await this.ask({ op: 'settle', sub, tags, outcome, ...more });
    assert.equal(said.op, 'ok');
  }

  async end() {
    this.socket.close(1000);
    return within(this.closed, 'the end');
  }
}

async function connect() {
  const client = new Client();
  await within(client.open, 'the handshake');
  const said = await client.ask({ op: 'connect', user: env.USER, password: env.PASS });
  assert.equal(said.op, 'connected');
  assert.equal(said.user, env.USER);
  return client;
}

/** A queue is made by the first client of STOMP or MQTT that names it. */
async function makeQueue(name) {
  const maker = await mqtt.connectAsync(`mqtt://${env.MQTT_HOST}:${env.MQTT_PORT}`, {
    username: env.USER, password: env.PASS,
  });
  await maker.subscribeAsync(`$queue/${name}`, { qos: 1 });
  await maker.endAsync();
}

const toQueue = (queue, payload, more = {}) => ({
  exchange: '', routing_key: queue, payload, ...more,
});

test('a wrong password closes with 1008', async () => {
  const client = new Client();
  await client.open;
  const said = await client.ask({ op: 'connect', user: env.USER, password: 'wrong' });
  assert.equal(said.code, 'login_failed');
  assert.equal(await within(client.closed, 'the end'), 1008);
});

test('a request with Authorization connects by itself', async () => {
  const basic = Buffer.from(`${env.USER}:${env.PASS}`).toString('base64');
  const client = new Client({ headers: { Authorization: `Basic ${basic}` } });
  assert.equal((await client.inbox.next()).op, 'connected');
  assert.equal((await client.ask({ op: 'ping' })).op, 'pong');
  assert.equal(await client.end(), 1000);
});

test('messages go to MQTT and come back, with headers and types', async () => {
  const client = await connect();
  const other = await mqtt.connectAsync(`ws://127.0.0.1:${env.HTTP_PORT}/ws/mqtt`, {
    username: env.USER, password: env.PASS, protocolVersion: 5,
  });
  const inbox = new Inbox();
  other.on('message', (topic, payload, packet) => inbox.push({ topic, payload, packet }));
  await other.subscribeAsync('json/#', { qos: 1 });
  const subscribe = { op: 'subscribe', sub: 's', exchange: 'amq.topic', pattern: 'json.#' };
  assert.equal((await client.ask(subscribe)).op, 'subscribed');
  const message = {
    exchange: 'amq.topic', routing_key: 'json.a', payload: { n: 1 }, payload_encoding: 'json',
    properties: { content_type: 'application/json', headers: { n: 5, t: 'x' } },
  };
  const confirm = await client.ask({ op: 'publish', message });
  assert.equal(confirm.routed, true);
  const { topic, payload, packet } = await inbox.next();
  assert.equal(topic, 'json/a');
  assert.deepEqual(JSON.parse(payload), { n: 1 });
  assert.equal(packet.properties.contentType, 'application/json');
  const own = await client.inbox.next();
  assert.deepEqual(own.message.properties.headers, { n: 5, t: 'x' });
  await other.publishAsync('json/b', Buffer.from([0, 255]), { qos: 1 });
  const { message: theirs } = await client.inbox.next();
  assert.equal(theirs.routing_key, 'json.b');
  assert.equal(theirs.payload_encoding, 'base64');
  assert.equal(theirs.payload, 'AP8=');
  await Promise.all([client.end(), other.endAsync()]);
});

test('credit bounds what is unsettled; requeue, reject and ack', async () => {
  await makeQueue('json-work');
  const client = await connect();
  for (let n = 0; n < 6; n++) {
    const confirm = await client.ask({ op: 'publish', message: toQueue('json-work', `${n}`) });
    assert.equal(confirm.outcome, 'stored');
  }
  const subscribe = { op: 'subscribe', sub: 'w', queue: 'json-work', credit: 2 };
  await client.ask(subscribe);
  const [first, second] = await client.inbox.take(2);
  assert.deepEqual([first, second].map((d) => d.message.payload), ['0', '1']);
  assert.equal((await client.ask({ op: 'ping' })).op, 'pong');
  await client.settle('w', [first.tag], 'ack');
  assert.equal((await client.inbox.next()).message.payload, '2');
  await client.ask({ op: 'credit', sub: 'w', add: 1 });
  assert.equal((await client.inbox.next()).message.payload, '3');
  await client.settle('w', [second.tag], 'requeue');
  const back = await client.inbox.next();
  assert.equal(back.message.payload, '1');
  assert.equal(back.message.redelivered, true);
  assert.equal(back.message.delivery_count, 1);
  await client.settle('w', [back.tag], 'reject');
  assert.equal((await client.inbox.next()).message.payload, '4');
  assert.equal((await client.ask({ op: 'unsubscribe', sub: 'w' })).op, 'ok');
  await client.ask({ ...subscribe, ack: 'auto' });
  const rest = await client.inbox.take(4);
  assert.deepEqual(rest.map((d) => d.message.payload), ['2', '3', '4', '5']);
  await client.end();
});

test('bodies of any size and kind, in binary messages', async () => {
  await makeQueue('json-bytes');
  const client = await connect();
  await client.ask({ op: 'subscribe', sub: 'b', queue: 'json-bytes', binary: true });
  for (const size of [0, 1, 125, 126, 5000, 65_536, 3_000_000]) {
    const body = Buffer.alloc(size, 7);
    const confirm = await client.publishBinary(toQueue('json-bytes'), body);
    assert.equal(confirm.outcome, 'stored');
    const delivery = await client.inbox.next();
    assert.ok(delivery.body.equals(body), `${size}`);
    assert.equal(delivery.message.payload, undefined);
    await client.settle('b', [delivery.tag], 'ack');
  }
  await client.end();
});

test('what was confirmed survives SIGKILL, and what was not settled comes again', async () => {
  await makeQueue('json-kill');
  let client = await connect();
  for (let n = 0; n < 50; n++) {
    await client.ask({ op: 'publish', message: toQueue('json-kill', `${n}`) });
  }
  await client.ask({ op: 'subscribe', sub: 'k', queue: 'json-kill' });
  await client.inbox.take(50);
  await ctl('kill');
  await within(client.closed, 'the end of the old connection');
  client = await connect();
  await client.ask({ op: 'subscribe', sub: 'k', queue: 'json-kill' });
  const again = await client.inbox.take(50);
  assert.deepEqual(again.map((d) => Number(d.message.payload)), [...Array(50).keys()]);
  await client.settle('k', again.map((d) => d.tag), 'ack');
  await client.end();
});

test('who stops is told, with 1001', async () => {
  const client = await connect();
  await ctl('restart');
  assert.equal((await client.inbox.next()).op, 'closing');
  assert.equal(await within(client.closed, 'the end'), 1001);
});

test('pages of other hosts stay outside', async () => {
  const client = new Client({ origin: 'http://elsewhere.example' });
  const status = new Promise((resolve) => {
    client.socket.on('unexpected-response', (_, response) => resolve(response.statusCode));
  });
  assert.equal(await within(status, 'an answer'), 403);
});

await main();
