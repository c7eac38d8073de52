// The cases of xmpp_client.js over WebSocket.
process.env.XMPP_URL = `ws://127.0.0.1:${process.env.HTTP_PORT}/ws/xmpp`;
await import('./xmpp_client.js');
