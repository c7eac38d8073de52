import org.apache.activemq.broker.BrokerService;

/** ActiveMQ as it comes, with its file store and a port for STOMP. */
public final class ActiveMqStomp {
    public static void main(String[] arguments) throws Exception {
        BrokerService broker = new BrokerService();
        broker.setUseJmx(false);
        broker.setDataDirectory(arguments[0]);
        broker.addConnector("stomp://127.0.0.1:" + arguments[1]);
        broker.start();
        broker.waitUntilStopped();
    }
}
