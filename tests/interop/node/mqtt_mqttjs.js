// MQTT.js with MQTT 3.1.1 and 5, over TCP unless MQTT_URL says otherwise.
import mqtt from 'mqtt';
import { assert, ctl, env, Inbox, main, once, test, within } from './cases.js';

const address = env.MQTT_URL ?? `mqtt://${env.MQTT_HOST}:${env.MQTT_PORT}`;
let counter = 0;

function options(version, more = {}) {
  return {
    protocolVersion: version, username: env.USER, password: env.PASS, reconnectPeriod: 0,
    clientId: `js-${version}-${counter++}`, ...more,
  };
}

async function connect(version, more = {}) {
  const client = mqtt.connect(address, options(version, more));
  client.inbox = new Inbox();
  client.on('message', (topic, payload, packet) => client.inbox.push({ topic, payload, packet }));
  client.on('error', () => {});
  [client.connack] = await once(client, 'connect');
  return client;
}

function lasting(version, clientId, more = {}) {
  const properties = version === 5 ? { properties: { sessionExpiryInterval: 300 } } : {};
  return connect(version, { clientId, clean: false, ...properties, ...more });
}

async function vanish(client) {
  const closed = once(client, 'close');
  client.stream.destroy();
  await closed;
}

const texts = (found) => found.map((m) => m.payload.toString());

for (const version of [4, 5]) {
  const name = version === 4 ? '3.1.1' : '5';

  test(`${name}: publish and subscribe with each QoS`, async () => {
    const subscriber = await connect(version);
    const publisher = await connect(version);
    for (const qos of [0, 1, 2]) {
      const [granted] = await subscriber.subscribeAsync(`js${version}/q${qos}/#`, { qos });
      assert.equal(granted.qos, qos);
      for (let number = 0; number < 20; number++) {
        await publisher.publishAsync(`js${version}/q${qos}/x`, `${number}`, { qos });
      }
      const found = await subscriber.inbox.take(20);
      assert.deepEqual(texts(found).map(Number), [...Array(20).keys()]);
      assert.ok(found.every((m) => m.packet.qos === qos));
    }
    await Promise.all([subscriber.endAsync(), publisher.endAsync()]);
  });

  test(`${name}: retained messages and will`, async () => {
    const watcher = await connect(version);
    await watcher.publishAsync(`js${version}/r/a`, 'kept', { qos: 1, retain: true });
    await watcher.subscribeAsync(`js${version}/r/+`, { qos: 1 });
    const first = await watcher.inbox.next();
    assert.equal(first.packet.retain, true);
    const mortal = await connect(version, {
      will: { topic: `js${version}/r/will`, payload: Buffer.from('gone'), qos: 1, retain: false },
    });
    await vanish(mortal);
    assert.equal((await watcher.inbox.next()).topic, `js${version}/r/will`);
    await watcher.publishAsync(`js${version}/r/a`, '', { qos: 1, retain: true });
    await watcher.endAsync();
  });

  test(`${name}: session is resumed`, async () => {
    const first = await lasting(version, `js-session-${version}`);
    assert.equal(first.connack.sessionPresent, false);
    await first.subscribeAsync(`js${version}/s`, { qos: 2 });
    await first.endAsync();
    const publisher = await connect(version);
    await publisher.publishAsync(`js${version}/s`, 'one', { qos: 1 });
    await publisher.publishAsync(`js${version}/s`, 'two', { qos: 2 });
    const again = await lasting(version, `js-session-${version}`);
    assert.equal(again.connack.sessionPresent, true);
    assert.deepEqual(texts(await again.inbox.take(2)), ['one', 'two']);
    await Promise.all([again.endAsync(), publisher.endAsync()]);
  });

  test(`${name}: wrong password is refused`, async () => {
    const client = mqtt.connect(address, options(version, { password: 'wrong' }));
    const [error] = await once(client, 'error');
    assert.ok([4, 5, 0x86, 0x87].includes(error.code), `code ${error.code}`);
    await client.endAsync(true);
  });

  test(`${name}: client reconnects by itself after a cut and after a kill`, async () => {
    for (const order of ['cut', 'kill']) {
      const client = await lasting(version, `js-back-${version}-${order}`, { reconnectPeriod: 100 });
      const topic = `js${version}/back/${order}`;
      await client.subscribeAsync(topic, { qos: 1 });
      const back = once(client, 'connect');
      await ctl(order);
      await back;
      await client.publishAsync(topic, 'again', { qos: 1 });
      assert.equal((await client.inbox.next()).payload.toString(), 'again');
      await client.endAsync();
    }
  });
}

test('5: properties, aliases and reason codes', async () => {
  const client = await connect(5, { properties: { topicAliasMaximum: 10, receiveMaximum: 5 } });
  await client.subscribeAsync('js5/p', { qos: 1, properties: { subscriptionIdentifier: 9 } });
  await client.publishAsync('js5/p', 'x', {
    qos: 1,
    properties: {
      contentType: 'text/plain', responseTopic: 'r', correlationData: Buffer.from([0, 1]),
      userProperties: { k: ['1', '2'], l: '3' }, messageExpiryInterval: 30,
      payloadFormatIndicator: true,
    },
  });
  const { properties } = (await client.inbox.next()).packet;
  assert.equal(properties.contentType, 'text/plain');
  assert.equal(properties.responseTopic, 'r');
  assert.deepEqual([...properties.correlationData], [0, 1]);
  assert.deepEqual({ ...properties.userProperties }, { k: ['1', '2'], l: '3' });
  assert.equal(properties.payloadFormatIndicator, true);
  assert.equal(properties.subscriptionIdentifier, 9);
  for (let number = 0; number < 20; number++) {
    await client.publishAsync('js5/p', `${number}`, { qos: 1 });
  }
  assert.deepEqual(texts(await client.inbox.take(20)).map(Number), [...Array(20).keys()]);
  await client.endAsync();
});

test('5: shared subscription divides the messages', async () => {
  const [a, b, publisher] = await Promise.all([connect(5), connect(5), connect(5)]);
  const all = new Inbox();
  for (const member of [a, b]) {
    member.on('message', (_, payload) => all.push(Number(payload)));
    await member.subscribeAsync('$share/js/js5/work', { qos: 1 });
  }
  for (let number = 0; number < 30; number++) {
    await publisher.publishAsync('js5/work', `${number}`, { qos: 1 });
  }
  const found = await within(all.take(30), 'shared messages');
  assert.deepEqual(found.sort((x, y) => x - y), [...Array(30).keys()]);
  await Promise.all([a, b, publisher].map((client) => client.endAsync()));
});

test('5: second client with the same id takes over', async () => {
  const first = await connect(5, { clientId: 'js-twin' });
  const told = once(first, env.PEER === 'mosquitto' ? 'close' : 'disconnect');
  const second = await connect(5, { clientId: 'js-twin' });
  const [packet] = await told;
  if (env.PEER !== 'mosquitto') assert.equal(packet.reasonCode, 0x8e);
  await second.endAsync();
  await first.endAsync(true);
});

await main();
