// Several threads, a warmed-up compiler and a collector at work. Nothing that it prints depends on time.
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

public class Work {
    static long job(int number) throws Exception {
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        byte[] hash = Integer.toString(number).getBytes("UTF-8");
        HashMap<String, Integer> map = new HashMap<>();
        for (int i = 0; i < 4000; i++) {
            hash = digest.digest(hash);
            map.merge("k" + (hash[0] & 63), (int) hash[1], Integer::sum);
        }
        long sum = 0;
        for (int i = 0; i < 64; i++) sum = sum * 31 + map.getOrDefault("k" + i, 0);
        Thread.sleep(1);
        return sum;
    }

    public static void main(String[] arguments) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(3);
        List<Future<Long>> all = new ArrayList<>();
        for (int i = 0; i < 400; i++) {
            final int number = i;
            all.add(pool.submit(() -> job(number)));
        }
        long total = 0;
        for (int i = 0; i < all.size(); i++) {
            total = total * 31 + all.get(i).get();
            if (i % 50 == 0) System.out.println("done " + i);
        }
        pool.shutdown();
        System.out.println("total " + Long.toHexString(total));
    }
}
