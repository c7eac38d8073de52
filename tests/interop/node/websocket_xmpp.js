// The cases of xmpp_client.js over WebSocket.
import { WebSocket } from 'ws';

/** As in a browser: promises are settled between one message and the next. */
globalThis.WebSocket = class extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { allowSynchronousEvents: false });
  }
};
process.env.XMPP_URL = `ws://127.0.0.1:${process.env.HTTP_PORT}/ws/xmpp`;
await import('./xmpp_client.js');
