// amqplib: promise API, confirms, errors of channel and connection, recovery by hand.
import amqp from 'amqplib';
import { assert, ctl, env, Inbox, main, once, test, within } from './cases.js';

const url = env.AMQP_URL;
const persistent = { persistent: true };

async function withChannel(run, confirm = false) {
  const connection = await amqp.connect(url);
  try {
    const channel = await (confirm ? connection.createConfirmChannel() : connection.createChannel());
    await run(channel, connection);
  } finally {
    await connection.close();
  }
}

async function consume(channel, queue, options = {}) {
  const inbox = new Inbox();
  await channel.consume(queue, (message) => inbox.push(message), options);
  return inbox;
}

/** The action must close its channel with this code and leave the connection usable. */
async function expectClose(connection, code, action) {
  const channel = await connection.createChannel();
  const failed = once(channel, 'error');
  await Promise.resolve(action(channel)).catch(() => {});
  const [error] = await failed;
  assert.equal(error.code, code, error.message);
  const again = await connection.createChannel();
  const { queue } = await again.assertQueue('', { exclusive: true });
  again.sendToQueue(queue, Buffer.from('still here'));
  const inbox = await consume(again, queue, { noAck: true });
  assert.equal((await inbox.next()).content.toString(), 'still here');
  await again.close();
}

test('publish, confirm, consume and acknowledge', () =>
  withChannel(async (channel) => {
    await channel.assertQueue('node', { durable: true });
    for (let number = 0; number < 100; number++) {
      channel.publish('', 'node', Buffer.from(`${number}`), persistent);
    }
    await channel.waitForConfirms();
    await channel.prefetch(10);
    const inbox = await consume(channel, 'node');
    for (let number = 0; number < 100; number++) {
      const message = await inbox.next();
      assert.equal(message.content.toString(), `${number}`);
      assert.equal(message.fields.redelivered, false);
      channel.ack(message);
    }
    assert.equal((await channel.deleteQueue('node')).messageCount, 0);
  }, true));

test('properties and header types come back', () =>
  withChannel(async (channel) => {
    const headers = {
      text: 'é', yes: true, small: 5, minus: -70000, real: 1.5, void: null,
      list: [1, 'a', [true]], table: { deep: { er: 'x' } }, bytes: Buffer.from([0, 255]),
      time: { '!': 'timestamp', value: 1700000000 },
    };
    const sent = {
      contentType: 'text/plain', contentEncoding: 'gzip', headers, deliveryMode: 2, priority: 3,
      correlationId: 'c', replyTo: 'r', expiration: '60000', messageId: 'm',
      timestamp: 1700000000, type: 't', userId: 'guest', appId: 'a',
    };
    const { queue } = await channel.assertQueue('', { exclusive: true });
    channel.sendToQueue(queue, Buffer.from('x'), sent);
    const { properties } = await (await consume(channel, queue, { noAck: true })).next();
    for (const [name, value] of Object.entries(sent)) {
      if (name === 'headers') continue;
      assert.deepEqual(properties[name], value, name);
    }
    assert.deepEqual(properties.headers, headers);
  }));

test('body of two mebibytes and empty body', () =>
  withChannel(async (channel) => {
    const { queue } = await channel.assertQueue('', { exclusive: true });
    const large = Buffer.alloc(2 << 20, 'abcdefg');
    channel.sendToQueue(queue, large);
    channel.sendToQueue(queue, Buffer.alloc(0));
    const inbox = await consume(channel, queue, { noAck: true });
    assert.ok((await inbox.next()).content.equals(large));
    assert.equal((await inbox.next()).content.length, 0);
  }));

test('unroutable mandatory message is returned before its confirm', () =>
  withChannel(async (channel) => {
    const events = [];
    channel.on('return', (message) => events.push(message));
    channel.publish('', 'nobody', Buffer.from('x'), { mandatory: true }, () => events.push('ack'));
    await channel.waitForConfirms();
    assert.equal(events[0].fields.replyCode, 312);
    assert.equal(events[0].content.toString(), 'x');
    assert.equal(events[1], 'ack');
  }, true));

test('refused publish is nacked', () =>
  withChannel(async (channel) => {
    const { queue } = await channel.assertQueue('', {
      exclusive: true, maxLength: 1, arguments: { 'x-overflow': 'reject-publish' },
    });
    channel.sendToQueue(queue, Buffer.from('fits'));
    await channel.waitForConfirms();
    channel.sendToQueue(queue, Buffer.from('too much'));
    await assert.rejects(channel.waitForConfirms());
  }, true));

test('get, nack and dead letter', () =>
  withChannel(async (channel) => {
    const dead = (await channel.assertQueue('', { exclusive: true })).queue;
    const { queue } = await channel.assertQueue('', {
      exclusive: true, deadLetterExchange: '', deadLetterRoutingKey: dead,
    });
    assert.equal(await channel.get(queue), false);
    channel.sendToQueue(queue, Buffer.from('x'));
    const inbox = await consume(channel, queue);
    channel.nack(await inbox.next(), false, true);
    const again = await inbox.next();
    assert.equal(again.fields.redelivered, true);
    channel.nack(again, false, false);
    const letter = await (await consume(channel, dead, { noAck: true })).next();
    assert.equal(letter.properties.headers['x-death'][0].reason, 'rejected');
    assert.equal(letter.properties.headers['x-death'][0].queue, queue);
  }));

test('exchanges route by type', () =>
  withChannel(async (channel) => {
    await channel.assertExchange('node-t', 'topic', { autoDelete: true });
    const { queue } = await channel.assertQueue('', { exclusive: true });
    await channel.bindQueue(queue, 'node-t', 'a.*.c');
    await channel.bindQueue(queue, 'amq.headers', '', { 'x-match': 'all', size: 5, ok: true });
    channel.publish('node-t', 'a.b.c', Buffer.from('topic'));
    channel.publish('node-t', 'a.b', Buffer.from('no'));
    channel.publish('amq.headers', '', Buffer.from('headers'), { headers: { size: 5, ok: true } });
    channel.publish('amq.headers', '', Buffer.from('no'), { headers: { size: 5 } });
    channel.sendToQueue(queue, Buffer.from('end'));
    const found = await (await consume(channel, queue, { noAck: true })).take(3);
    assert.deepEqual(found.map((m) => m.content.toString()), ['topic', 'headers', 'end']);
  }));

test('channel errors have their codes and leave the connection', async () => {
  const connection = await amqp.connect(url);
  await expectClose(connection, 404, (c) => c.checkQueue('missing'));
  await expectClose(connection, 404, (c) => c.checkExchange('missing'));
  await expectClose(connection, 404, (c) => c.publish('missing', 'k', Buffer.from('x')));
  const keeper = await connection.createChannel();
  await keeper.assertQueue('node-fixed', { durable: true });
  await expectClose(connection, 406, (c) => c.assertQueue('node-fixed', { durable: false }));
  await expectClose(connection, 406, (c) => c.ack({ fields: { deliveryTag: 42 } }));
  await expectClose(connection, 403, (c) => c.assertQueue('amq.forbidden'));
  const other = await amqp.connect(url);
  await (await other.createChannel()).assertQueue('node-mine', { exclusive: true });
  await expectClose(connection, 405, (c) => c.checkQueue('node-mine'));
  await other.close();
  await keeper.deleteQueue('node-fixed');
  await connection.close();
});

test('wrong password and unknown vhost are refused', async () => {
  await assert.rejects(amqp.connect(url.replace('guest:guest', 'guest:wrong')), /403|ACCESS/);
  await assert.rejects(amqp.connect(url.replace('%2f', 'nowhere')), /530|ConnectionClose/);
});

test('consumer hears that its queue is gone', () =>
  withChannel(async (channel, connection) => {
    const { queue } = await channel.assertQueue('', { autoDelete: true });
    const inbox = await consume(channel, queue);
    const other = await connection.createChannel();
    await other.deleteQueue(queue);
    assert.equal(await inbox.next(), null);
  }));

test('request and reply over a direct reply queue', () =>
  withChannel(async (channel) => {
    const { queue } = await channel.assertQueue('', { exclusive: true });
    const requests = await consume(channel, queue, { noAck: true });
    const replies = await consume(channel, 'amq.rabbitmq.reply-to', { noAck: true });
    channel.sendToQueue(queue, Buffer.from('2+2'), {
      replyTo: 'amq.rabbitmq.reply-to', correlationId: '7',
    });
    const { properties } = await requests.next();
    channel.sendToQueue(properties.replyTo, Buffer.from('4'), {
      correlationId: properties.correlationId,
    });
    const reply = await replies.next();
    assert.equal(reply.content.toString(), '4');
    assert.equal(reply.properties.correlationId, '7');
  }));

test('secret is updated', () =>
  withChannel(async (channel, connection) => {
    await connection.updateSecret(Buffer.from('guest'), 'rotation');
    await channel.assertQueue('', { exclusive: true });
  }));

test('heartbeats keep an idle connection', async () => {
  const connection = await amqp.connect(`${url}?heartbeat=1`);
  const closed = new Promise((resolve) => connection.once('close', () => resolve('closed')));
  connection.on('error', () => {});
  const idle = new Promise((resolve) => setTimeout(() => resolve('open'), 2_500));
  assert.equal(await Promise.race([closed, idle]), 'open');
  await connection.close();
});

async function survive(order) {
  const connection = await amqp.connect(url);
  connection.on('error', () => {});
  const channel = await connection.createConfirmChannel();
  channel.on('error', () => {});
  const queue = `node-${order}`;
  await channel.assertQueue(queue, { durable: true });
  for (let number = 0; number < 20; number++) {
    channel.sendToQueue(queue, Buffer.from(`${number}`), persistent);
  }
  await channel.waitForConfirms();
  const closed = once(connection, 'close');
  await ctl(order);
  await closed;
  await withChannel(async (again) => {
    const inbox = await consume(again, queue);
    const found = await inbox.take(20);
    assert.deepEqual(found.map((m) => Number(m.content)), [...Array(20).keys()]);
    again.ackAll();
    await again.deleteQueue(queue);
  });
}

test('confirmed messages are there after a cut', () => within(survive('cut'), 'cut'));
test('confirmed messages are there after a kill', () => within(survive('kill'), 'kill'));

await main();
