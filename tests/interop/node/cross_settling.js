// MQTT.js reads plain queues and says with reason codes how each message ends; amqplib looks.
import amqp from 'amqplib';
import mqtt from 'mqtt';
import { assert, env, Inbox, main, once, test } from './cases.js';

const address = `mqtt://${env.MQTT_HOST}:${env.MQTT_PORT}`;
let counter = 0;

/** A queue with dead letters, an AMQP channel, and an MQTT 5 reader that answers with these codes. */
async function reading(codes, run, options = {}) {
  const connection = await amqp.connect(env.AMQP_URL);
  const channel = await connection.createConfirmChannel();
  const dead = (await channel.assertQueue('', { exclusive: true })).queue;
  const queue = `cross-settling-${counter++}`;
  const dying = { deadLetterExchange: '', deadLetterRoutingKey: dead };
  await channel.assertQueue(queue, { durable: true, ...dying, ...options });
  const inbox = new Inbox();
  const client = mqtt.connect(address, {
    protocolVersion: 5, username: env.USER, password: env.PASS, reconnectPeriod: 0,
    customHandleAcks(topic, payload, packet, done) {
      inbox.push({ topic, payload: payload.toString(), packet });
      done(null, codes.length > 0 ? codes.shift() : 0);
    },
  });
  await once(client, 'connect');
  await client.subscribeAsync(`$queue/${queue}`, { qos: 1 });
  channel.sendToQueue(queue, Buffer.from('x'), { persistent: true });
  await channel.waitForConfirms();
  try {
    await run({ channel, queue, dead, inbox });
  } finally {
    await client.endAsync();
    await channel.deleteQueue(queue);
    await connection.close();
  }
}

const counts = ({ packet }) => {
  const user = packet.properties?.userProperties ?? {};
  return [user['x-acquired-count'], user['x-delivery-count']];
};

test('0x97 returns a message, 0x80 and 0x83 return it as failed', () =>
  reading([0x97, 0x80, 0x83], async ({ channel, queue, inbox }) => {
    const found = await inbox.take(4);
    assert.deepEqual(found.map(counts), [
      [undefined, undefined], ['1', undefined], ['2', '1'], ['3', '2'],
    ]);
    assert.equal((await channel.checkQueue(queue)).messageCount, 0);
  }));

for (const code of [0x87, 0x90, 0x99]) {
  test(`0x${code.toString(16)} rejects a message`, () =>
    reading([code], async ({ channel, queue, dead, inbox }) => {
      await inbox.next();
      const letters = new Inbox();
      await channel.consume(dead, (message) => letters.push(message), { noAck: true });
      const { content, properties } = await letters.next();
      assert.equal(content.toString(), 'x');
      const [death] = properties.headers['x-death'];
      assert.deepEqual([death.reason, death.queue, death.count], ['rejected', queue, 1]);
    }));
}

test('a delivery limit counts failures of MQTT clients', () =>
  reading(
    [0x80, 0x80],
    async ({ channel, dead, inbox }) => {
      await inbox.take(2);
      const letters = new Inbox();
      await channel.consume(dead, (message) => letters.push(message), { noAck: true });
      const { properties } = await letters.next();
      assert.equal(properties.headers['x-death'][0].reason, 'delivery_limit');
    },
    { arguments: { 'x-delivery-limit': 1 } },
  ));

test('a full queue is told to an MQTT publisher', async () => {
  const connection = await amqp.connect(env.AMQP_URL);
  const channel = await connection.createChannel();
  await channel.assertQueue('cross-full', { exclusive: true, maxLength: 1, overflow: 'reject-publish' });
  const client = mqtt.connect(address, {
    protocolVersion: 5, username: env.USER, password: env.PASS, reconnectPeriod: 0,
  });
  await once(client, 'connect');
  const publish = (body) =>
    new Promise((resolve) => {
      client.publish('$queue/cross-full', body, { qos: 1 }, (error, packet) =>
        resolve(error?.code ?? packet?.reasonCode ?? 0));
    });
  await publish('fits');
  assert.equal(await publish('too much'), 0x97);
  await client.endAsync();
  await connection.close();
});

await main();
