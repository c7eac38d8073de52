// amqplib's way of writing arguments: options of its own, and `arguments` for all others.
import amqp from 'amqplib';
import { assert, env, Inbox, main, once, peer, test } from './cases.js';

const url = env.AMQP_URL;

/** A queue with these options and one for dead letters, on a confirm channel. */
async function withQueue(options, run) {
  const connection = await amqp.connect(url);
  connection.on('error', () => {});
  try {
    const channel = await connection.createConfirmChannel();
    channel.on('error', () => {});
    const dead = (await channel.assertQueue('', { exclusive: true })).queue;
    const made = typeof options === 'function' ? options(dead) : options;
    const { queue } = await channel.assertQueue('', { exclusive: true, ...made });
    // The same once more is no difference.
    await channel.assertQueue(queue, { exclusive: true, ...made });
    await run({ channel, queue, dead, connection });
  } finally {
    await connection.close().catch(() => {});
  }
}

const dying = (more) => (dead) => ({ deadLetterExchange: '', deadLetterRoutingKey: dead, ...more });
const ours = peer === 'polymq' ? test : () => {};

/** Publishes and resolves to true when the broker took it. */
const send = (channel, queue, body, options) =>
  new Promise((resolve) => {
    channel.sendToQueue(queue, Buffer.from(body), options ?? {}, (error) => resolve(!error));
  });

async function consume(channel, queue, options = {}) {
  const inbox = new Inbox();
  await channel.consume(queue, (message) => inbox.push(message), options);
  return inbox;
}

/** The bodies in a queue, in order. */
async function drain(channel, queue) {
  const bodies = [];
  for (;;) {
    const message = await channel.get(queue, { noAck: true });
    if (!message) return bodies;
    bodies.push(message.content.toString());
  }
}

/** The next dead letter's body and reason. */
async function letter(channel, dead) {
  const message = await (await consume(channel, dead, { noAck: true })).next();
  return [message.content.toString(), message.properties.headers['x-death'][0].reason];
}

test('messageTtl', () =>
  withQueue(dying({ messageTtl: 50 }), async ({ channel, queue, dead }) => {
    await send(channel, queue, 'brief');
    assert.deepEqual(await letter(channel, dead), ['brief', 'expired']);
  }));

test('expiration of a message', () =>
  withQueue(dying({}), async ({ channel, queue, dead }) => {
    await send(channel, queue, 'brief', { expiration: 50 });
    assert.deepEqual(await letter(channel, dead), ['brief', 'expired']);
  }));

test('expires', async () => {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  const { queue } = await channel.assertQueue('', { expires: 100 });
  await new Promise((resolve) => setTimeout(resolve, 600));
  const failed = once(channel, 'error');
  await channel.checkQueue(queue).catch(() => {});
  assert.equal((await failed)[0].code, 404);
  await connection.close();
});

test('maxLength and deadLetterExchange', () =>
  withQueue(dying({ maxLength: 1 }), async ({ channel, queue, dead }) => {
    await send(channel, queue, 'first');
    await send(channel, queue, 'second');
    assert.deepEqual(await letter(channel, dead), ['first', 'maxlen']);
    assert.deepEqual(await drain(channel, queue), ['second']);
  }));

test('overflow', () =>
  withQueue({ maxLength: 1, overflow: 'reject-publish' }, async ({ channel, queue }) => {
    assert.equal(await send(channel, queue, 'fits'), true);
    assert.equal(await send(channel, queue, 'too much'), false);
  }));

test('overflow to dead letters', () =>
  withQueue(
    dying({ maxLength: 1, arguments: { 'x-overflow': 'reject-publish-dlx' } }),
    async ({ channel, queue, dead }) => {
      await send(channel, queue, 'fits');
      assert.equal(await send(channel, queue, 'too much'), false);
      assert.deepEqual(await letter(channel, dead), ['too much', 'maxlen']);
    },
  ));

test('maximum length in bytes', () =>
  withQueue({ arguments: { 'x-max-length-bytes': 5 } }, async ({ channel, queue }) => {
    await send(channel, queue, '12345');
    await send(channel, queue, '6');
    assert.deepEqual(await drain(channel, queue), ['6']);
  }));

test('maxPriority', () =>
  withQueue({ maxPriority: 5 }, async ({ channel, queue }) => {
    for (const priority of [0, 5, 3, 9]) {
      await send(channel, queue, `${priority}`, { priority });
    }
    assert.deepEqual(await drain(channel, queue), ['5', '9', '3', '0']);
  }));

test('queueMode', () =>
  withQueue({ queueMode: 'lazy' }, async ({ channel, queue }) => {
    await send(channel, queue, 'x');
    assert.deepEqual(await drain(channel, queue), ['x']);
  }));

test('single active consumer', () =>
  withQueue({ arguments: { 'x-single-active-consumer': true } }, async ({ channel, queue }) => {
    const first = await consume(channel, queue, { noAck: true, consumerTag: 'first' });
    const second = await consume(channel, queue, { noAck: true });
    await send(channel, queue, '1');
    assert.equal((await first.next()).content.toString(), '1');
    await channel.cancel('first');
    await send(channel, queue, '2');
    assert.equal((await second.next()).content.toString(), '2');
  }));

test('priority of consumers', () =>
  withQueue({}, async ({ channel, queue }) => {
    const low = await consume(channel, queue, { noAck: true });
    const high = await consume(channel, queue, { noAck: true, priority: 10 });
    await send(channel, queue, '1');
    await send(channel, queue, '2');
    assert.equal((await high.take(2)).length, 2);
    assert.ok(low);
  }));

test('exclusive consumer', () =>
  withQueue({}, async ({ channel, queue, connection }) => {
    await consume(channel, queue, { exclusive: true });
    const other = await connection.createChannel();
    const failed = once(other, 'error');
    await consume(other, queue).catch(() => {});
    assert.equal((await failed)[0].code, 403);
  }));

test('alternateExchange', () =>
  withQueue({}, async ({ channel, queue }) => {
    await channel.assertExchange('node-rest', 'fanout', { autoDelete: true });
    await channel.bindQueue(queue, 'node-rest', '');
    const main = { alternateExchange: 'node-rest', autoDelete: false, durable: false };
    await channel.assertExchange('node-main', 'direct', main);
    channel.publish('node-main', 'nobody', Buffer.from('the rest'), { mandatory: true });
    await channel.waitForConfirms();
    assert.deepEqual(await drain(channel, queue), ['the rest']);
    await channel.deleteExchange('node-main');
  }));

test('CC and BCC', () =>
  withQueue({}, async ({ channel, queue, dead }) => {
    await send(channel, 'nobody', 'copies', { CC: [queue], BCC: [dead] });
    const message = await channel.get(queue, { noAck: true });
    assert.deepEqual(message.properties.headers, { CC: [queue] });
    assert.deepEqual(await drain(channel, dead), ['copies']);
  }));

test('quorum queue with a delivery limit', async () => {
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  const dead = (await channel.assertQueue('', { exclusive: true })).queue;
  const quorum = { 'x-queue-type': 'quorum', 'x-delivery-limit': 1 };
  const options = { durable: true, deadLetterExchange: '', deadLetterRoutingKey: dead };
  await channel.assertQueue('node-quorum', { ...options, arguments: quorum });
  await send(channel, 'node-quorum', 'poison');
  const inbox = await consume(channel, 'node-quorum');
  for (let time = 0; time < 2; time++) channel.reject(await inbox.next(), true);
  assert.deepEqual(await letter(channel, dead), ['poison', 'delivery_limit']);
  await channel.deleteQueue('node-quorum');
  await connection.close();
});

ours('delayed retry by every number style', () =>
  withQueue(
    {
      arguments: {
        'x-delayed-retry-type': 'all', 'x-delayed-retry-min': '100', 'x-delayed-retry-max': 150,
        'x-delayed-retry-backoff': 'exponential', 'x-delayed-retry-factor': 1.5,
        'x-delayed-retry-jitter': { '!': 'decimal', value: { digits: 0, places: 1 } },
      },
    },
    async ({ channel, queue }) => {
      await send(channel, queue, 'retried');
      const inbox = await consume(channel, queue);
      const times = [];
      for (let time = 0; time < 3; time++) {
        const message = await inbox.next();
        times.push(Date.now());
        channel.nack(message, false, true);
      }
      assert.ok(times[1] - times[0] >= 95, `${times}`);
      assert.ok(times[2] - times[1] >= 145, `${times}`);
    },
  ));

ours('delivery limit of a classic queue, and what counts', () =>
  withQueue(
    dying({ arguments: { 'x-delivery-limit': 1, 'x-delivery-limit-counts': 'all' } }),
    async ({ channel, queue, dead }) => {
      await send(channel, queue, 'poison');
      const inbox = await consume(channel, queue);
      for (let time = 0; time < 2; time++) channel.nack(await inbox.next(), false, true);
      assert.deepEqual(await letter(channel, dead), ['poison', 'delivery_limit']);
    },
  ));

ours('consumer timeout of a consumer', () =>
  withQueue({}, async ({ channel, queue }) => {
    await send(channel, queue, 'slow');
    const inbox = await consume(channel, queue, { arguments: { 'x-consumer-timeout': 200 } });
    assert.equal((await inbox.next()).content.toString(), 'slow');
    assert.equal(await inbox.next('the cancel notice'), null);
  }));

ours('dead-letter strategy, durability and largest message', () =>
  withQueue(
    dying({
      arguments: {
        'x-dead-letter-strategy': 'at-least-once', 'x-durability': 'os', 'x-max-message-size': 3,
      },
    }),
    async ({ channel, queue }) => {
      await send(channel, queue, '123');
      const failed = once(channel, 'error');
      channel.sendToQueue(queue, Buffer.from('1234'));
      assert.equal((await failed)[0].code, 406);
    },
  ));

ours('delay of a message and of an exchange', () =>
  withQueue({}, async ({ channel, queue }) => {
    const delayed = { arguments: { 'x-delayed-type': 'direct' }, autoDelete: true };
    await channel.assertExchange('node-delayed', 'x-delayed-message', delayed);
    await channel.bindQueue(queue, 'node-delayed', 'k');
    const inbox = await consume(channel, queue, { noAck: true });
    for (const [exchange, key] of [['', queue], ['node-delayed', 'k']]) {
      const sent = Date.now();
      channel.publish(exchange, key, Buffer.from('later'), { headers: { 'x-delay': 300 } });
      const { properties } = await inbox.next();
      assert.ok(Date.now() - sent >= 290);
      assert.equal(properties.headers['x-delay'], -300);
    }
  }));

ours('hashes of headers and of properties', () =>
  withQueue({}, async ({ channel, queue }) => {
    const by = [{ 'hash-header': 'customer' }, { 'hash-property': 'message_id' }];
    for (const [index, argument] of by.entries()) {
      const exchange = `node-hash-${index}`;
      await channel.assertExchange(exchange, 'x-consistent-hash', { arguments: argument });
      await channel.bindQueue(queue, exchange, '3');
      channel.publish(exchange, 'k', Buffer.from('x'), { headers: { customer: 7 }, messageId: 'm' });
      await channel.waitForConfirms();
      assert.deepEqual(await drain(channel, queue), ['x']);
      await channel.deleteExchange(exchange);
    }
  }));

test('wrong values are refused', async () => {
  const connection = await amqp.connect(url);
  for (const wrong of [{ messageTtl: -1 }, { expires: 0 }, { maxLength: -1 }, { overflow: 'spill' },
    { maxPriority: 256 }, { deadLetterRoutingKey: 'k' }]) {
    const channel = await connection.createChannel();
    const failed = once(channel, 'error');
    await channel.assertQueue('', { exclusive: true, ...wrong }).catch(() => {});
    assert.equal((await failed)[0].code, 406, JSON.stringify(wrong));
  }
  await connection.close();
});

await main();
