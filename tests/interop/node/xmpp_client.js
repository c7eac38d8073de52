// @xmpp/client, over TCP unless XMPP_URL says otherwise: STARTTLS, SCRAM, messages, queues, PubSub, resumption.
import { client, xml } from '@xmpp/client';
import { assert, ctl, env, Inbox, main, once, test, within } from './cases.js';

// The library awaits an answer only once its request is written. An error that comes before that
// is handled a moment later, and is no reason for Node to end the process.
process.on('unhandledRejection', (error) => {
  if (error.name !== 'StanzaError') throw error;
});

const domain = 'localhost';
const queues = `queues.${domain}`;
const topics = `topics.${domain}`;

async function connected(run, username = 'guest', resource = 'node') {
  const xmpp = client({
    service: env.XMPP_URL ?? `xmpp://${env.XMPP_HOST}:${env.XMPP_PORT}`,
    domain,
    resource,
    username,
    password: username,
  });
  xmpp.on('error', () => {});
  xmpp.inbox = new Inbox();
  xmpp.on('stanza', (stanza) => {
    if (stanza.is('message')) xmpp.inbox.push(stanza);
  });
  await within(xmpp.start(), 'the login');
  try {
    await xmpp.send(xml('presence'));
    await run(xmpp);
  } finally {
    await xmpp.stop();
  }
}

function command(xmpp, node, fields) {
  const form = xml('x', { xmlns: 'jabber:x:data', type: 'submit' },
    ...Object.entries(fields).map(([name, value]) =>
      xml('field', { var: name }, xml('value', {}, value))));
  return xmpp.iqCaller.set(xml('command', {
    xmlns: 'http://jabber.org/protocol/commands', node: `urn:polymq:command:${node}`,
  }, form), queues);
}

const chat = (to, text) => xml('message', { type: 'chat', to }, xml('body', {}, text));

test('a chat message comes back to oneself', () =>
  connected(async (xmpp) => {
    assert.equal(xmpp.jid.toString(), `guest@${domain}/node`);
    await xmpp.send(chat(`guest@${domain}`, 'hello'));
    const message = await xmpp.inbox.next();
    assert.equal(message.getChildText('body'), 'hello');
    assert.equal(message.attrs.from, `guest@${domain}/node`);
  }));

test('two users talk', () =>
  connected((guest) => connected(async (admin) => {
    await guest.send(chat(`admin@${domain}`, 'one'));
    assert.equal((await admin.inbox.next()).getChildText('body'), 'one');
    await admin.send(chat(`guest@${domain}/node`, 'two'));
    assert.equal((await guest.inbox.next()).getChildText('body'), 'two');
  }, 'admin')));

test('a queue is declared, filled and consumed', () =>
  connected(async (xmpp) => {
    await command(xmpp, 'declare', { queue: 'node' });
    for (let number = 0; number < 10; number++) {
      await xmpp.send(xml('message', { to: `node@${queues}` }, xml('body', {}, `${number}`)));
    }
    await xmpp.send(xml('presence', { to: `node@${queues}` },
      xml('consume', { xmlns: 'urn:polymq:queue:1', prefetch: '3' })));
    const bodies = (await xmpp.inbox.take(10)).map((message) => message.getChildText('body'));
    assert.deepEqual(bodies, [...Array(10).keys()].map(String));
    await command(xmpp, 'delete', { queue: 'node' });
  }));

test('an error names its condition', () =>
  connected(async (xmpp) => {
    await xmpp.send(xml('message', { to: `missing@${queues}`, id: 'm1' }, xml('body', {}, 'x')));
    const answer = await xmpp.inbox.next();
    assert.equal(answer.attrs.type, 'error');
    assert.ok(answer.getChild('error').getChild('item-not-found'));
    await assert.rejects(command(xmpp, 'purge', { queue: 'missing' }),
      { condition: 'item-not-found' });
  }));

test('a node of PubSub is a topic', () =>
  connected(async (xmpp) => {
    const pubsub = (...children) =>
      xmpp.iqCaller.set(xml('pubsub', 'http://jabber.org/protocol/pubsub', ...children), topics);
    await pubsub(xml('subscribe', { node: 'node.*', jid: xmpp.jid.toString() }));
    await pubsub(xml('publish', { node: 'node.x' },
      xml('item', { id: 'i' }, xml('entry', 'http://www.w3.org/2005/Atom', 'text'))));
    const event = (await xmpp.inbox.next()).getChild('event');
    const items = event.getChild('items');
    assert.equal(items.attrs.node, 'node.x');
    assert.equal(items.getChild('item').getChildText('entry'), 'text');
  }));

test('the stream goes on when the connection is cut', () =>
  connected(async (xmpp) => {
    await xmpp.send(chat(`guest@${domain}`, 'before'));
    assert.equal((await xmpp.inbox.next()).getChildText('body'), 'before');
    const resumed = once(xmpp.streamManagement, 'resumed');
    await ctl('cut');
    await resumed;
    await xmpp.send(chat(`guest@${domain}/node`, 'after'));
    assert.equal((await xmpp.inbox.next()).getChildText('body'), 'after');
  }));

await main();
