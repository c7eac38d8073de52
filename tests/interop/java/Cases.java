import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.TimeUnit;

/** The small frame of the Java programs: cases, their verdicts, orders to the broker. */
final class Cases {
    static final long LIMIT_SECS = 60;

    private static final BufferedReader ANSWERS =
            new BufferedReader(new InputStreamReader(System.in));

    private final Map<String, Case> cases = new LinkedHashMap<>();

    /** A case passes when it returns. */
    interface Case {
        void run() throws Exception;
    }

    void add(String name, Case run) {
        cases.put(name, run);
    }

    /** Runs all cases and ends the process. */
    void runAll() {
        int failures = 0;
        for (Map.Entry<String, Case> entry : cases.entrySet()) {
            try {
                entry.getValue().run();
                System.out.println("ok " + entry.getKey());
            } catch (Exception | AssertionError error) {
                failures++;
                String why = String.valueOf(error).replaceAll("\\s+", " ");
                System.out.println("not ok " + entry.getKey() + ": " + why);
                error.printStackTrace();
            }
        }
        System.exit(failures > 0 ? 1 : 0);
    }

    /** Asks the test to kill, restart or cut; returns when that is done. */
    static void ctl(String order) throws IOException {
        System.out.println("ctl " + order);
        if (!"done".equals(ANSWERS.readLine())) {
            throw new AssertionError("the order " + order + " was not answered");
        }
    }

    static void equal(Object found, Object expected, String what) {
        if (!Objects.equals(found, expected)) {
            throw new AssertionError(what + ": expected " + expected + ", found " + found);
        }
    }

    static <T> T next(BlockingQueue<T> queue, String what) throws InterruptedException {
        T value = queue.poll(LIMIT_SECS, TimeUnit.SECONDS);
        if (value == null) {
            throw new AssertionError("nothing came in time: " + what);
        }
        return value;
    }
}
