// The cases of mqtt_mqttjs.js over WebSocket.
process.env.MQTT_URL = `ws://127.0.0.1:${process.env.HTTP_PORT}/ws/mqtt`;
await import('./mqtt_mqttjs.js');
