import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AlreadyClosedException;
import com.rabbitmq.client.AuthenticationFailureException;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.LongString;
import com.rabbitmq.client.MessageProperties;
import com.rabbitmq.client.Method;
import com.rabbitmq.client.Recoverable;
import com.rabbitmq.client.RecoveryListener;
import com.rabbitmq.client.Return;
import com.rabbitmq.client.RpcClient;
import com.rabbitmq.client.RpcClientParams;
import com.rabbitmq.client.RpcServer;
import com.rabbitmq.client.ShutdownSignalException;

import java.io.IOException;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.util.Date;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** The RabbitMQ Java client: confirms, errors, transactions, RPC, automatic recovery. */
public final class RabbitClient {
    private static final String URL = System.getenv("AMQP_URL");
    private static final long LIMIT_MS = Cases.LIMIT_SECS * 1000;

    private RabbitClient() {}

    public static void main(String[] arguments) {
        Cases cases = new Cases();
        cases.add("publish, confirm, consume and acknowledge", with(RabbitClient::confirmed));
        cases.add("properties and header types come back", with(RabbitClient::properties));
        cases.add("unroutable mandatory message is returned", with(RabbitClient::returned));
        cases.add("refused publish is nacked", with(RabbitClient::refused));
        cases.add("get, reject, recover and dead letter", with(RabbitClient::settled));
        cases.add("exchange bound to exchange", with(RabbitClient::exchanges));
        cases.add("channel errors have their codes", with(RabbitClient::channelErrors));
        cases.add("wrong password and unknown vhost are refused", RabbitClient::badLogin);
        cases.add("consumer hears that its queue is gone", with(RabbitClient::cancelled));
        cases.add("transaction commits and rolls back", with(RabbitClient::transaction));
        cases.add("remote procedure calls over direct reply-to", with(RabbitClient::rpc));
        cases.add("heartbeats keep an idle connection", RabbitClient::heartbeats);
        cases.add("topology recovers after a cut", () -> recovery("cut"));
        cases.add("topology recovers after a kill", () -> recovery("kill"));
        cases.runAll();
    }

    private interface Use {
        void of(Connection connection, Channel channel) throws Exception;
    }

    private static ConnectionFactory factory() throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(URL);
        factory.setAutomaticRecoveryEnabled(false);
        return factory;
    }

    private static Cases.Case with(Use use) {
        return () -> {
            try (Connection connection = factory().newConnection()) {
                use.of(connection, connection.createChannel());
            }
        };
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static String text(byte[] body) {
        return new String(body, StandardCharsets.UTF_8);
    }

    private static BlockingQueue<Delivery> consume(Channel channel, String queue, boolean autoAck)
            throws IOException {
        BlockingQueue<Delivery> inbox = new LinkedBlockingQueue<>();
        channel.basicConsume(queue, autoAck, (tag, delivery) -> inbox.add(delivery), tag -> {});
        return inbox;
    }

    private static String ownQueue(Channel channel, Map<String, Object> arguments)
            throws IOException {
        return channel.queueDeclare("", false, true, false, arguments).getQueue();
    }

    private static void confirmed(Connection connection, Channel channel) throws Exception {
        channel.confirmSelect();
        channel.queueDeclare("java", true, false, false, null);
        for (int number = 0; number < 100; number++) {
            byte[] body = bytes("" + number);
            channel.basicPublish("", "java", MessageProperties.PERSISTENT_BASIC, body);
        }
        channel.waitForConfirmsOrDie(LIMIT_MS);
        channel.basicQos(10);
        BlockingQueue<Delivery> inbox = consume(channel, "java", false);
        for (int number = 0; number < 100; number++) {
            Delivery delivery = Cases.next(inbox, "delivery");
            Cases.equal(text(delivery.getBody()), "" + number, "body");
            channel.basicAck(delivery.getEnvelope().getDeliveryTag(), false);
        }
        Cases.equal(channel.queueDelete("java").getMessageCount(), 0, "left over");
    }

    private static void properties(Connection connection, Channel channel) throws Exception {
        Map<String, Object> headers = new HashMap<>();
        headers.put("yes", true);
        headers.put("byte", (byte) -5);
        headers.put("short", (short) 300);
        headers.put("int", 70000);
        headers.put("long", 1L << 40);
        headers.put("float", 1.5f);
        headers.put("double", 2.25);
        headers.put("void", null);
        headers.put("decimal", new BigDecimal("12.50"));
        headers.put("time", new Date(1_700_000_000_000L));
        headers.put("list", List.of(1, true));
        headers.put("table", Map.of("deep", 7));
        AMQP.BasicProperties sent = new AMQP.BasicProperties.Builder().headers(headers)
                .contentType("text/plain").contentEncoding("gzip").deliveryMode(2).priority(3)
                .correlationId("c").replyTo("r").expiration("60000").messageId("m")
                .timestamp(new Date(1_700_000_000_000L)).type("t").userId("guest")
                .appId("a").build();
        String queue = ownQueue(channel, null);
        BlockingQueue<Delivery> inbox = consume(channel, queue, true);
        channel.basicPublish("", queue, sent, bytes("x"));
        Cases.equal(Cases.next(inbox, "delivery").getProperties(), sent, "properties");
        Map<String, Object> words = new HashMap<>(Map.of("text", "é"));
        channel.basicPublish("", queue,
                new AMQP.BasicProperties.Builder().headers(words).build(), new byte[0]);
        Delivery second = Cases.next(inbox, "second delivery");
        Object word = second.getProperties().getHeaders().get("text");
        Cases.equal(((LongString) word).toString(), "é", "text header");
        Cases.equal(second.getBody().length, 0, "length");
    }

    private static void returned(Connection connection, Channel channel) throws Exception {
        BlockingQueue<Return> returns = new LinkedBlockingQueue<>();
        channel.addReturnListener(returns::add);
        channel.confirmSelect();
        channel.basicPublish("", "nobody", true, null, bytes("x"));
        Cases.equal(channel.waitForConfirms(LIMIT_MS), true, "confirmed");
        Return found = Cases.next(returns, "return");
        Cases.equal(found.getReplyCode(), AMQP.NO_ROUTE, "reply code");
        Cases.equal(text(found.getBody()), "x", "body");
    }

    private static void refused(Connection connection, Channel channel) throws Exception {
        channel.confirmSelect();
        String queue = ownQueue(channel, Map.of("x-max-length", 1, "x-overflow", "reject-publish"));
        channel.basicPublish("", queue, null, bytes("fits"));
        Cases.equal(channel.waitForConfirms(LIMIT_MS), true, "first");
        channel.basicPublish("", queue, null, bytes("too much"));
        Cases.equal(channel.waitForConfirms(LIMIT_MS), false, "second");
    }

    private static void settled(Connection connection, Channel channel) throws Exception {
        String dead = ownQueue(channel, null);
        String queue = ownQueue(channel,
                Map.of("x-dead-letter-exchange", "", "x-dead-letter-routing-key", dead));
        Cases.equal(channel.basicGet(queue, false), null, "empty queue");
        channel.confirmSelect();
        channel.basicPublish("", queue, null, bytes("x"));
        channel.waitForConfirmsOrDie(LIMIT_MS);
        Cases.equal(text(channel.basicGet(queue, false).getBody()), "x", "got");
        channel.basicRecover(true);
        GetResponse again = channel.basicGet(queue, false);
        Cases.equal(again.getEnvelope().isRedeliver(), true, "redelivered");
        channel.basicReject(again.getEnvelope().getDeliveryTag(), false);
        Delivery letter = Cases.next(consume(channel, dead, true), "dead letter");
        List<?> deaths = (List<?>) letter.getProperties().getHeaders().get("x-death");
        Map<?, ?> death = (Map<?, ?>) deaths.get(0);
        Cases.equal(death.get("reason").toString(), "rejected", "reason");
        Cases.equal(death.get("count"), 1L, "count");
    }

    private static void exchanges(Connection connection, Channel channel) throws Exception {
        channel.exchangeDeclare("java-in", "headers", false, true, null);
        channel.exchangeBind("java-in", "amq.topic", "to.#");
        String queue = ownQueue(channel, null);
        channel.queueBind(queue, "java-in", "", Map.of("x-match", "any", "size", 5, "ok", true));
        AMQP.BasicProperties five =
                new AMQP.BasicProperties.Builder().headers(Map.of("size", 5)).build();
        channel.basicPublish("amq.topic", "to.java", null, bytes("no"));
        channel.basicPublish("amq.topic", "to.java", five, bytes("yes"));
        Delivery found = Cases.next(consume(channel, queue, true), "delivery");
        Cases.equal(text(found.getBody()), "yes", "body");
        Cases.equal(found.getEnvelope().getExchange(), "amq.topic", "exchange");
    }

    private interface Action {
        void on(Channel channel) throws Exception;
    }

    private static int closeCode(Connection connection, Action action) throws Exception {
        Channel channel = connection.createChannel();
        BlockingQueue<ShutdownSignalException> closed = new LinkedBlockingQueue<>();
        channel.addShutdownListener(closed::add);
        try {
            action.on(channel);
        } catch (IOException | AlreadyClosedException expected) {
            // The listener has the reason.
        }
        Method reason = Cases.next(closed, "channel close").getReason();
        return ((AMQP.Channel.Close) reason).getReplyCode();
    }

    private static void channelErrors(Connection connection, Channel keeper) throws Exception {
        keeper.queueDeclare("java-fixed", true, false, false, null);
        Cases.equal(closeCode(connection, c -> c.queueDeclarePassive("missing")), 404, "queue");
        Cases.equal(closeCode(connection, c -> c.exchangeDeclarePassive("missing")), 404,
                "exchange");
        Cases.equal(closeCode(connection, c -> c.basicPublish("missing", "k", null, bytes("x"))),
                404, "publish");
        Cases.equal(closeCode(connection,
                c -> c.queueDeclare("java-fixed", false, false, false, null)), 406, "redeclare");
        Cases.equal(closeCode(connection, c -> c.basicAck(99, false)), 406, "unknown tag");
        Cases.equal(closeCode(connection,
                c -> c.queueDeclare("amq.mine", false, false, false, null)), 403, "reserved name");
        try (Connection other = factory().newConnection()) {
            other.createChannel().queueDeclare("java-mine", false, true, false, null);
            Cases.equal(closeCode(connection, c -> c.queueDeclarePassive("java-mine")), 405,
                    "locked");
        }
        keeper.queueDelete("java-fixed");
    }

    private static void badLogin() throws Exception {
        ConnectionFactory wrong = factory();
        wrong.setPassword("wrong");
        try {
            wrong.newConnection().close();
            throw new AssertionError("the wrong password was accepted");
        } catch (AuthenticationFailureException expected) {
            Cases.equal(expected.getMessage().contains("ACCESS_REFUSED"), true, "close reason");
        }
        ConnectionFactory nowhere = factory();
        nowhere.setVirtualHost("nowhere");
        try {
            nowhere.newConnection().close();
            throw new AssertionError("the unknown vhost was accepted");
        } catch (IOException expected) {
            ShutdownSignalException signal = (ShutdownSignalException) expected.getCause();
            Cases.equal(((AMQP.Connection.Close) signal.getReason()).getReplyCode(), 530, "vhost");
        }
    }

    private static void cancelled(Connection connection, Channel channel) throws Exception {
        String queue = channel.queueDeclare("", false, false, true, null).getQueue();
        BlockingQueue<String> cancels = new LinkedBlockingQueue<>();
        String tag = channel.basicConsume(queue, true, (t, delivery) -> {}, cancels::add);
        channel.queueDelete(queue);
        Cases.equal(Cases.next(cancels, "cancel"), tag, "consumer tag");
    }

    private static void transaction(Connection connection, Channel channel) throws Exception {
        String queue = ownQueue(channel, null);
        channel.txSelect();
        channel.basicPublish("", queue, null, bytes("no"));
        channel.txRollback();
        channel.basicPublish("", queue, null, bytes("yes"));
        channel.txCommit();
        Cases.equal(text(channel.basicGet(queue, true).getBody()), "yes", "body");
    }

    private static void rpc(Connection connection, Channel channel) throws Exception {
        String queue = ownQueue(channel, null);
        RpcServer server = new RpcServer(connection.createChannel(), queue) {
            @Override
            public byte[] handleCall(byte[] request, AMQP.BasicProperties reply) {
                return bytes(text(request).toUpperCase());
            }
        };
        Thread loop = new Thread(() -> {
            try {
                server.mainloop();
            } catch (IOException closed) {
                // The connection of this case has ended.
            }
        });
        loop.setDaemon(true);
        loop.start();
        RpcClient client = new RpcClient(new RpcClientParams().channel(channel).exchange("")
                .routingKey(queue).timeout((int) LIMIT_MS));
        for (String word : List.of("one", "two", "three")) {
            Cases.equal(client.stringCall(word), word.toUpperCase(), "reply");
        }
        client.close();
        server.terminateMainloop();
    }

    private static void heartbeats() throws Exception {
        ConnectionFactory factory = factory();
        factory.setRequestedHeartbeat(1);
        try (Connection connection = factory.newConnection()) {
            BlockingQueue<ShutdownSignalException> closed = new LinkedBlockingQueue<>();
            connection.addShutdownListener(closed::add);
            Cases.equal(closed.poll(2500, TimeUnit.MILLISECONDS), null, "close");
            connection.createChannel().queueDeclare();
        }
    }

    private static void recovery(String order) throws Exception {
        ConnectionFactory factory = factory();
        factory.setAutomaticRecoveryEnabled(true);
        factory.setNetworkRecoveryInterval(200);
        try (Connection connection = factory.newConnection()) {
            BlockingQueue<Recoverable> recovered = new LinkedBlockingQueue<>();
            ((Recoverable) connection).addRecoveryListener(new RecoveryListener() {
                @Override
                public void handleRecovery(Recoverable recoverable) {
                    recovered.add(recoverable);
                }

                @Override
                public void handleRecoveryStarted(Recoverable recoverable) {}
            });
            Channel channel = connection.createChannel();
            channel.confirmSelect();
            String durable = "java-" + order;
            channel.queueDeclare(durable, true, false, false, null);
            String temporary = channel.queueDeclare().getQueue();
            channel.exchangeDeclare("java-x-" + order, "topic", false, true, null);
            channel.queueBind(temporary, "java-x-" + order, "a.#");
            channel.basicPublish("", durable, MessageProperties.PERSISTENT_BASIC, bytes("kept"));
            channel.waitForConfirmsOrDie(LIMIT_MS);
            BlockingQueue<Delivery> inbox = consume(channel, temporary, true);
            Cases.ctl(order);
            Cases.next(recovered, "recovery");
            channel.basicPublish("java-x-" + order, "a.b", null, bytes("again"));
            channel.waitForConfirmsOrDie(LIMIT_MS);
            Cases.equal(text(Cases.next(inbox, "delivery").getBody()), "again",
                    "recovered consumer");
            Cases.equal(text(channel.basicGet(durable, true).getBody()), "kept", "durable queue");
            channel.queueDelete(durable);
        }
    }
}
