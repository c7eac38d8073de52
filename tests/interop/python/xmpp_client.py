"""A slixmpp client with an inbox, for the XMPP scripts."""

import asyncio
import ssl

import slixmpp
from cases import PASS, USER, XMPP_CA, XMPP_HOST, XMPP_PORT

DOMAIN = "localhost"
PLUGINS = ("xep_0004", "xep_0030", "xep_0045", "xep_0050", "xep_0060", "xep_0198", "xep_0199",
           "xep_0203", "xep_0280")


class Client(slixmpp.ClientXMPP):
    """Logs in over STARTTLS; everything that comes waits in queues."""

    def __init__(self, user=USER, resource="test", password=None, mechanism=None, plugins=PLUGINS,
                 presence=True, domain=DOMAIN, port=XMPP_PORT):
        password = password or (PASS if user == USER else user)
        super().__init__(f"{user}@{domain}/{resource}", password, sasl_mech=mechanism)
        self.login_done = asyncio.get_event_loop().create_future()
        self.messages, self.presences = asyncio.Queue(), asyncio.Queue()
        self.is_to_be_present = presence
        self.port_of_server = port
        self.enable_direct_tls = False
        if XMPP_CA:
            self.ssl_context.load_verify_locations(XMPP_CA)
            self.ca_certs = XMPP_CA
        else:
            self.ssl_context.check_hostname = False
            self.ssl_context.verify_mode = ssl.CERT_NONE
        self.add_event_handler("session_start", self._on_session)
        self.add_event_handler("failed_all_auth", lambda _: self._fail("the login failed"))
        self.register_handler(slixmpp.xmlstream.handler.Callback(
            "every message", slixmpp.xmlstream.matcher.MatchXPath(f"{{{self.default_ns}}}message"),
            self.messages.put_nowait))
        self.register_handler(slixmpp.xmlstream.handler.Callback(
            "every presence",
            slixmpp.xmlstream.matcher.MatchXPath(f"{{{self.default_ns}}}presence"),
            self.presences.put_nowait))
        for plugin in plugins:
            self.register_plugin(plugin)

    def _fail(self, why):
        if not self.login_done.done():
            self.login_done.set_exception(AssertionError(why))

    async def _on_session(self, _):
        await self.get_roster()
        if self.is_to_be_present:
            self.send_presence()
            await self.presence(lambda p: p["from"] == self.boundjid)
        if not self.login_done.done():
            self.login_done.set_result(True)

    async def __aenter__(self):
        self.connect(XMPP_HOST, self.port_of_server)
        await asyncio.wait_for(asyncio.shield(self.login_done), 30)
        return self

    async def __aexit__(self, *_):
        await self.disconnect(wait=1)

    async def message(self, wanted=lambda _: True, limit=30.0):
        """The next message that is wanted; others are dropped."""
        return await self._next(self.messages, wanted, limit)

    async def presence(self, wanted=lambda _: True, limit=30.0):
        return await self._next(self.presences, wanted, limit)

    async def no_message(self, limit=0.3):
        """Nothing comes within this time, which a ping at its end proves."""
        await asyncio.sleep(limit)
        await self.plugin["xep_0199"].ping(DOMAIN)
        if not self.messages.empty():
            raise AssertionError(f"unexpected: {self.messages.get_nowait()}")

    async def _next(self, queue, wanted, limit):
        async def take():
            while True:
                stanza = await queue.get()
                if wanted(stanza):
                    return stanza
        return await asyncio.wait_for(take(), limit)

    def say(self, to, body, kind="chat", **attributes):
        message = self.make_message(to, body, mtype=kind)
        for name, value in attributes.items():
            message[name] = value
        message.send()
        return message

    def send_xml(self, text):
        self.send_raw(text)


def child(stanza, namespace, name):
    found = stanza.xml.find(f"{{{namespace}}}{name}")
    if found is None:
        raise AssertionError(f"no <{name} xmlns='{namespace}'/> in {stanza}")
    return found
