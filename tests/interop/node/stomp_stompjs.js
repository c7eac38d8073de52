// @stomp/stompjs with STOMP 1.0, 1.1 and 1.2, over TCP unless STOMP_URL says otherwise.
import { connect as connectTcp } from 'node:net';
import { Client, StompSocketState, Versions } from '@stomp/stompjs';
import WebSocket from 'ws';
import { assert, ctl, env, Inbox, main, test, within } from './cases.js';

/** What stompjs needs of a WebSocket, over a plain socket. */
class TcpSocket {
  readyState = StompSocketState.CONNECTING;
  binaryType = 'arraybuffer';
  url = `tcp://${env.STOMP_HOST}:${env.STOMP_PORT}`;

  constructor() {
    this.socket = connectTcp(Number(env.STOMP_PORT), env.STOMP_HOST);
    this.socket.on('connect', () => {
      this.readyState = StompSocketState.OPEN;
      this.onopen();
    });
    this.socket.on('data', (data) => {
      const bytes = data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
      this.onmessage({ data: bytes });
    });
    this.socket.on('error', (error) => this.onerror?.(error));
    this.socket.on('close', () => {
      this.readyState = StompSocketState.CLOSED;
      this.onclose({ code: 1000, reason: 'closed', wasClean: true });
    });
  }

  send(data) {
    this.socket.write(typeof data === 'string' ? data : Buffer.from(data));
  }

  close() {
    this.readyState = StompSocketState.CLOSING;
    this.socket.end();
  }

  terminate() {
    this.socket.destroy();
  }
}

function webSocket(version) {
  const socket = new WebSocket(env.STOMP_URL, [`v${version.replace('.', '')}.stomp`]);
  socket.binaryType = 'arraybuffer';
  return socket;
}

/** A client that is connected, with an inbox for its messages. */
async function connect(version = '1.2', more = {}) {
  const client = new Client({
    webSocketFactory: () => (env.STOMP_URL ? webSocket(version) : new TcpSocket()),
    connectHeaders: { login: env.USER, passcode: env.PASS, host: '/' },
    stompVersions: new Versions([version]),
    reconnectDelay: 0, heartbeatIncoming: 0, heartbeatOutgoing: 0, ...more,
  });
  client.errors = new Inbox();
  client.closes = new Inbox();
  client.onStompError = (frame) => client.errors.push(frame);
  client.onWebSocketClose = () => client.closes.push(true);
  const connected = new Promise((resolve) => { client.onConnect = resolve; });
  client.activate();
  client.connected_frame = await within(connected, 'CONNECTED');
  return client;
}

let counter = 0;

async function subscribe(client, destination, headers = {}) {
  const inbox = new Inbox();
  const receipt = `s${counter++}`;
  const ready = receiptOf(client, receipt);
  inbox.subscription =
    client.subscribe(destination, (message) => inbox.push(message), { receipt, ...headers });
  await ready;
  return inbox;
}

function receiptOf(client, receipt) {
  const told = new Promise((resolve) => client.watchForReceipt(receipt, resolve));
  return within(told, `receipt ${receipt}`);
}

async function confirm(client, destination, body, headers = {}) {
  const receipt = `r${counter++}`;
  const told = receiptOf(client, receipt);
  client.publish({ destination, body, headers: { receipt, ...headers } });
  return told;
}

for (const version of ['1.0', '1.1', '1.2']) {
  test(`${version}: send and receive`, async () => {
    const client = await connect(version);
    const inbox = await subscribe(client, `/queue/js-${version}`);
    for (let number = 0; number < 30; number++) {
      client.publish({ destination: `/queue/js-${version}`, body: `${number}` });
    }
    const found = await inbox.take(30);
    assert.deepEqual(found.map((m) => Number(m.body)), [...Array(30).keys()]);
    await client.deactivate();
  });

  test(`${version}: headers and binary bodies return as they were`, async () => {
    const client = await connect(version);
    const inbox = await subscribe(client, '/topic/js.bytes');
    // It escapes headers in 1.2 only.
    const value = version === '1.2' ? 'line\nand: \\ more' : 'plain';
    const binaryBody = Uint8Array.from([0, 1, 255, 0]);
    client.publish({ destination: '/topic/js.bytes', binaryBody, headers: { mine: value } });
    const message = await inbox.next();
    assert.deepEqual([...message.binaryBody], [0, 1, 255, 0]);
    assert.equal(message.headers.mine, value);
    await client.deactivate();
  });

  test(`${version}: acknowledgements and transactions`, async () => {
    const client = await connect(version);
    const name = `/queue/js-ack-${version}`;
    const inbox = await subscribe(client, name, { ack: 'client' });
    const transaction = client.begin();
    transaction.commit();
    for (const body of ['a', 'b', 'c']) client.publish({ destination: name, body });
    const found = await inbox.take(3);
    found[1].ack();
    await client.deactivate();
    const again = await connect(version);
    const rest = await subscribe(again, name, { ack: 'client' });
    const left = await rest.next();
    assert.equal(left.body, 'c');
    const second = again.begin();
    left.ack({ transaction: second.id });
    again.publish({ destination: name, body: 'd', headers: { transaction: second.id } });
    second.commit();
    const last = await rest.next();
    assert.equal(last.body, 'd');
    last.ack();
    await again.deactivate();
  });
}

test('heart-beats go both ways', async () => {
  const client = await connect('1.2', { heartbeatIncoming: 1000, heartbeatOutgoing: 1000 });
  await new Promise((resolve) => setTimeout(resolve, 3000));
  assert.ok(client.connected);
  await client.deactivate();
});

test('nack gives a message back', async () => {
  const client = await connect();
  const inbox = await subscribe(client, '/queue/js-nack', { ack: 'client-individual' });
  client.publish({ destination: '/queue/js-nack', body: 'x' });
  (await inbox.next()).nack();
  const again = await inbox.next();
  assert.equal(again.body, 'x');
  again.ack();
  await client.deactivate();
});

test('unsubscribed clients get nothing', async () => {
  const client = await connect();
  const inbox = await subscribe(client, '/topic/js.gone');
  const receipt = `u${counter++}`;
  const told = receiptOf(client, receipt);
  inbox.subscription.unsubscribe({ receipt });
  await told;
  await confirm(client, '/topic/js.gone', 'x');
  const other = await subscribe(client, '/topic/js.here');
  await confirm(client, '/topic/js.here', 'y');
  assert.equal((await other.next()).body, 'y');
  await client.deactivate();
});

test('an error ends the connection', async () => {
  const client = await connect();
  client.publish({ destination: '/nowhere', body: 'x' });
  const frame = await client.errors.next();
  assert.equal(frame.command, 'ERROR');
  await client.closes.next();
  await client.deactivate();
});

test('a lost connection is made again', async () => {
  const client = await connect('1.2', { reconnectDelay: 100 });
  const again = new Promise((resolve) => { client.onConnect = resolve; });
  await ctl('cut');
  await within(again, 'a second CONNECTED');
  const inbox = await subscribe(client, '/queue/js-again');
  await confirm(client, '/queue/js-again', 'x');
  assert.equal((await inbox.next()).body, 'x');
  await client.deactivate();
});

await main();
