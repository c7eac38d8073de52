// A page in headless Chromium: JSON over WebSocket, and the events that HTTP sends.
//
// The page and the broker share an origin, as behind a reverse proxy: this script serves the page and
// passes everything else on.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { createServer, request as ask } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { assert, env, Inbox, main, test, within } from './cases.js';

const chromium = ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find(existsSync);
const broker = { host: '127.0.0.1', port: Number(env.HTTP_PORT) };
const told = new Inbox();

/** What every page can do: tell the script, and wait for a message of a WebSocket. */
const common = `
const tell = (what) => fetch('/told', { method: 'POST', body: JSON.stringify(what) });
window.onerror = (text) => tell({ error: String(text) });
window.onunhandledrejection = (event) => tell({ error: String(event.reason) });
const basic = 'Basic ' + btoa('${env.USER}:${env.PASS}');
const json = (ws) => {
  const waiting = new Map();
  let next = 1;
  ws.deliveries = [];
  ws.onmessage = async ({ data }) => {
    const isBinary = typeof data !== 'string';
    const bytes = isBinary ? new DataView(await data.arrayBuffer()) : null;
    const length = isBinary ? bytes.getUint32(0) : 0;
    const text = isBinary ? new TextDecoder().decode(bytes.buffer.slice(4, 4 + length)) : data;
    const said = JSON.parse(text);
    if (isBinary) said.body = [...new Uint8Array(bytes.buffer.slice(4 + length))];
    if (waiting.has(said.re)) waiting.get(said.re)(said);
    else ws.deliveries.push(said);
    ws.onheard?.(said);
  };
  return (op) => new Promise((resolve) => {
    const id = next++;
    waiting.set(id, resolve);
    ws.send(JSON.stringify({ ...op, id }));
  });
};
const open = () => new Promise((resolve, reject) => {
  const ws = new WebSocket('ws://' + location.host + '/ws/json', 'polymq.json.v1');
  ws.onopen = () => resolve(ws);
  ws.onerror = () => reject(new Error('no WebSocket'));
});
const delivery = (ws) => new Promise((resolve) => {
  const look = () => ws.deliveries.length > 0 && resolve(ws.deliveries.shift());
  ws.onheard = look;
  look();
});
`;

let page = '';

function serve() {
  const server = createServer((request, response) => {
    if (request.url === '/page') {
      response.setHeader('Content-Type', 'text/html; charset=utf-8');
      return response.end(`<!doctype html><script>${common}(async () => {${page}})();</script>`);
    }
    if (request.url === '/told') {
      let body = '';
      request.on('data', (data) => { body += data; });
      return request.on('end', () => { told.push(JSON.parse(body)); response.end(); });
    }
    const { method, url: path, headers } = request;
    const passed = ask({ ...broker, method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    response.on('close', () => passed.destroy());
    passed.on('error', () => response.destroy());
    return request.pipe(passed);
  });
  server.on('upgrade', (request, socket, head) => {
    const passed = connect(broker.port, broker.host, () => {
      const lines = [`${request.method} ${request.url} HTTP/1.1`];
      for (let at = 0; at < request.rawHeaders.length; at += 2) {
        lines.push(`${request.rawHeaders[at]}: ${request.rawHeaders[at + 1]}`);
      }
      passed.write(`${lines.join('\r\n')}\r\n\r\n`);
      passed.write(head);
      socket.pipe(passed).pipe(socket);
    });
    passed.on('error', () => socket.destroy());
    socket.on('error', () => passed.destroy());
  });
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve(server.address().port));
  });
}

/**
 * Removes the browser's folder. Its processes were killed, yet the system ends each of them when it gets
 * to it, and one that writes a last file makes a folder not empty that was emptied just now.
 */
async function remove(folder) {
  for (;;) {
    try {
      return await rm(folder, { recursive: true, force: true });
    } catch (error) {
      if (error.code !== 'ENOTEMPTY') throw error;
    }
  }
}

/** Runs a page and returns what it tells. */
async function visit(script) {
  page = `${script}`;
  const folder = mkdtempSync(join(tmpdir(), 'polymq-browser-'));
  const browser = spawn(chromium, [
    '--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-dev-shm-usage',
    '--disable-background-networking', '--remote-debugging-port=0', `--user-data-dir=${folder}`,
    `http://127.0.0.1:${port}/page`,
  ], { stdio: 'ignore', detached: true });
  const ended = new Promise((resolve) => browser.on('exit', resolve));
  try {
    const what = await within(told.next('what the page tells'), 'the page', 20_000);
    assert.equal(what.error, undefined);
    return what;
  } finally {
    process.kill(-browser.pid, 'SIGKILL');
    await ended;
    await within(remove(folder), 'removing the folder', 20_000);
  }
}

const port = await serve();

if (chromium === undefined) {
  console.log('skip browser: Debian\'s package chromium is missing');
  console.log('ok nothing to do');
  process.exit(0);
}

test('a page publishes, follows an exchange and settles', async () => {
  const what = await visit(`
    const ws = await open();
    const ask = json(ws);
    const connected = await ask({ op: 'connect', user: '${env.USER}', password: '${env.PASS}' });
    const subscribe = { op: 'subscribe', sub: 's', exchange: 'amq.topic', pattern: 'page.#' };
    await ask(subscribe);
    const message = { exchange: 'amq.topic', routing_key: 'page.a', payload: 'é😀',
      properties: { headers: { n: 5 } } };
    const confirm = await ask({ op: 'publish', message });
    const one = await delivery(ws);
    const settled = await ask({ op: 'settle', sub: 's', tags: [one.tag], outcome: 'ack' });
    await ask({ ...subscribe, sub: 'b', binary: true });
    const head = new TextEncoder().encode(JSON.stringify(
      { op: 'publish', message: { exchange: 'amq.topic', routing_key: 'page.b' } }));
    const bytes = new Uint8Array(4 + head.length + 3);
    new DataView(bytes.buffer).setUint32(0, head.length);
    bytes.set(head, 4);
    bytes.set([0, 255, 7], 4 + head.length);
    ws.send(bytes);
    const two = [await delivery(ws), await delivery(ws)];
    ws.onclose = ({ code, wasClean }) => tell({
      user: connected.user, routed: confirm.routed, payload: one.message.payload,
      headers: one.message.properties.headers, settled: settled.op,
      body: two.find((d) => d.sub === 'b').body, code, wasClean,
    });
    ws.close(1000);
  `);
  assert.deepEqual(what, {
    user: env.USER, routed: true, payload: 'é😀', headers: { n: 5 }, settled: 'ok',
    body: [0, 255, 7], code: 1000, wasClean: true,
  });
});

test('a page hears the events of a subscription over HTTP', async () => {
  const what = await visit(`
    const ws = await open();
    const ask = json(ws);
    await ask({ op: 'connect', user: '${env.USER}', password: '${env.PASS}' });
    const path = '/api/v1/vhosts/%2F/subscribe?exchange=amq.topic&pattern=events.%23';
    const response = await fetch(path, { headers: { Authorization: basic } });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    const publish = () => ask({ op: 'publish',
      message: { exchange: 'amq.topic', routing_key: 'events.x', payload: 'over' } });
    await publish();
    while (!text.includes('events.x')) {
      const { value, done } = await reader.read();
      if (done) break;
      text += value;
    }
    tell({ type: response.headers.get('content-type'), heard: text.includes('events.x') });
  `);
  assert.deepEqual(what, { type: 'text/event-stream', heard: true });
});

test('MQTT and XMPP answer a browser in their subprotocols', async () => {
  const what = await visit(`
    const first = (path, name, text) => new Promise((resolve, reject) => {
      const ws = new WebSocket('ws://' + location.host + path, name);
      ws.binaryType = 'arraybuffer';
      ws.onopen = () => ws.send(text);
      ws.onmessage = ({ data }) => resolve([ws.protocol,
        typeof data === 'string' ? data.slice(0, 5) : [...new Uint8Array(data)].slice(0, 2)]);
      ws.onerror = () => reject(new Error(path));
    });
    const connect = new Uint8Array([16, 13, 0, 4, 77, 81, 84, 84, 4, 2, 0, 60, 0, 1, 99]);
    const xmpp = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>";
    const stomp = 'CONNECT\\naccept-version:1.2\\nhost:/\\n\\n\\0';
    tell([
      await first('/ws/mqtt', ['mqtt'], connect),
      await first('/ws/xmpp', ['xmpp'], xmpp),
      await first('/ws/stomp', ['v12.stomp', 'v11.stomp'], stomp),
      await first('/ws/amqp', ['amqp'], new Uint8Array([65, 77, 81, 80, 0, 0, 9, 1])),
    ]);
  `);
  assert.deepEqual(what, [
    ['mqtt', [32, 2]], ['xmpp', '<open'], ['v12.stomp', 'CONNE'], ['amqp', [1, 0]],
  ]);
});

await main();
