import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;

import javax.jms.BytesMessage;
import javax.jms.Connection;
import javax.jms.DeliveryMode;
import javax.jms.MessageProducer;
import javax.jms.Session;

import org.apache.activemq.ActiveMQConnectionFactory;
import org.apache.activemq.broker.BrokerService;
import org.apache.activemq.store.jdbc.JDBCPersistenceAdapter;
import org.postgresql.ds.PGPoolingDataSource;

/** ActiveMQ on its JDBC store, and 50 publishers that each wait until a message is stored. */
public final class ActiveMqJdbc {
    private static final int PUBLISHERS = 50;
    private static final int BODY_BYTES = 128;

    public static void main(String[] arguments) throws Exception {
        switch (arguments[0]) {
            case "broker" -> broker(arguments[1], arguments[2]);
            case "load" -> load(arguments[1], Integer.parseInt(arguments[2]));
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    /** Prints where it listens, and serves until it is ended. */
    private static void broker(String database, String folder) throws Exception {
        PGPoolingDataSource source = new PGPoolingDataSource();
        source.setUrl(database);
        source.setMaxConnections(60);
        JDBCPersistenceAdapter store = new JDBCPersistenceAdapter();
        store.setDataSource(source);
        BrokerService broker = new BrokerService();
        broker.setUseJmx(false);
        broker.setDataDirectory(folder);
        broker.setPersistenceAdapter(store);
        broker.addConnector("tcp://127.0.0.1:0");
        broker.start();
        broker.waitUntilStarted();
        System.out.println(broker.getTransportConnectors().get(0).getPublishableConnectString());
        broker.waitUntilStopped();
    }

    private static void load(String address, int seconds) throws Exception {
        AtomicLong sent = new AtomicLong();
        AtomicBoolean ends = new AtomicBoolean();
        Thread[] publishers = new Thread[PUBLISHERS];
        for (int i = 0; i < PUBLISHERS; i++) {
            publishers[i] = new Thread(() -> publish(address, sent, ends));
            publishers[i].start();
        }
        Thread.sleep(5_000);
        long before = sent.get();
        long started = System.nanoTime();
        Thread.sleep(seconds * 1000L);
        double rate = (sent.get() - before) * 1e9 / (System.nanoTime() - started);
        ends.set(true);
        for (Thread publisher : publishers) {
            publisher.join();
        }
        System.out.printf("%.0f messages a second%n", rate);
    }

    /** A persistent message is sent synchronously: the call returns when the broker has it. */
    private static void publish(String address, AtomicLong sent, AtomicBoolean ends) {
        try {
            Connection connection = new ActiveMQConnectionFactory(address).createConnection();
            connection.start();
            Session session = connection.createSession(false, Session.AUTO_ACKNOWLEDGE);
            MessageProducer producer = session.createProducer(session.createQueue("speed"));
            producer.setDeliveryMode(DeliveryMode.PERSISTENT);
            BytesMessage message = session.createBytesMessage();
            message.writeBytes(new byte[BODY_BYTES]);
            while (!ends.get()) {
                producer.send(message);
                sent.incrementAndGet();
            }
            connection.close();
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }
}
