import java.io.File;
import java.lang.management.ManagementFactory;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.JoinWindows;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.StreamJoined;

/**
 * Kafka Streams' inner join of two topics by key, exactly once, with its RocksDB stores: what the joiner is measured
 * against. It knows nothing of Avro, horizons or revisions: it puts the bytes of both sides one behind the other.
 *
 * Arguments: bootstrap servers, left topic, right topic, output topic, application id, state folder, threads, passes.
 * Each pass joins everything under an application id of its own; the last one is printed: seconds and CPU seconds of
 * this process, from the first record taken to everything committed.
 */
public final class StreamsJoin {
    public static void main(String[] arguments) throws Exception {
        int passes = Integer.parseInt(arguments[7]);
        for (int pass = 0; pass < passes; pass++) {
            String found = join(arguments, arguments[4] + "-" + pass);
            if (pass == passes - 1) {
                System.out.println(found);
            }
        }
        System.exit(0);
    }

    private static String join(String[] arguments, String application) throws Exception {
        String left = arguments[1];
        String right = arguments[2];
        AtomicLong started = new AtomicLong();
        AtomicLong cpu = new AtomicLong();
        StreamsBuilder builder = new StreamsBuilder();
        Consumed<byte[], byte[]> bytes = Consumed.with(Serdes.ByteArray(), Serdes.ByteArray());
        KStream<byte[], byte[]> first = builder.stream(left, bytes);
        KStream<byte[], byte[]> second = builder.stream(right, bytes);
        first.peek((key, value) -> {
            if (started.get() == 0 && started.compareAndSet(0, System.nanoTime())) {
                cpu.set(cpuTime());
            }
        }).join(
            second,
            (one, other) -> {
                byte[] both = new byte[one.length + other.length];
                System.arraycopy(one, 0, both, 0, one.length);
                System.arraycopy(other, 0, both, one.length, other.length);
                return both;
            },
            JoinWindows.ofTimeDifferenceWithNoGrace(Duration.ofHours(1)),
            StreamJoined.with(Serdes.ByteArray(), Serdes.ByteArray(), Serdes.ByteArray())
        ).to(arguments[3], Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));

        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, new File(arguments[5], application).getPath());
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, arguments[6]);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, "1");
        settings.put("auto.offset.reset", "earliest");
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", arguments[0]));
                KafkaStreams streams = new KafkaStreams(builder.build(), settings)) {
            Map<TopicPartition, Long> ends = ends(admin, left, right);
            streams.start();
            while (!committed(admin, application, ends)) {
                Thread.sleep(20);
            }
            double seconds = (System.nanoTime() - started.get()) / 1e9;
            double used = (cpuTime() - cpu.get()) / 1e9;
            return "{\"seconds\": " + seconds + ", \"cpu_seconds\": " + used + "}";
        }
    }

    private static Map<TopicPartition, Long> ends(Admin admin, String... topics) throws Exception {
        Map<TopicPartition, OffsetSpec> asked = new HashMap<>();
        for (String topic : topics) {
            int partitions =
                admin.describeTopics(java.util.List.of(topic)).allTopicNames().get().get(topic).partitions().size();
            for (int partition = 0; partition < partitions; partition++) {
                asked.put(new TopicPartition(topic, partition), OffsetSpec.latest());
            }
        }
        Map<TopicPartition, Long> found = new HashMap<>();
        admin.listOffsets(asked).all().get().forEach((tp, info) -> found.put(tp, info.offset()));
        return found;
    }

    private static boolean committed(Admin admin, String group, Map<TopicPartition, Long> ends) throws Exception {
        var offsets = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        for (var end : ends.entrySet()) {
            var found = offsets.get(end.getKey());
            if (end.getValue() > 0 && (found == null || found.offset() < end.getValue())) {
                return false;
            }
        }
        return true;
    }

    private static long cpuTime() {
        return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean())
            .getProcessCpuTime();
    }
}
