// The cases of stomp_stompjs.js over WebSocket.
process.env.STOMP_URL = `ws://127.0.0.1:${process.env.HTTP_PORT}/ws/stomp`;
await import('./stomp_stompjs.js');
