# Threads with queues, timers, children that are waited for, and signals to itself. Nothing that it prints depends on time or on ids.
# Not `digest`, which loads this one when it is asked for first: from two threads at once Ruby cannot do that.
require 'digest/sha2'
require 'timeout'

ROUNDS = 800
own = $$
came = 0
trap('USR2') { came += 1 }
jobs, results = Queue.new, Queue.new
workers = 3.times.map do
  Thread.new do
    while (job = jobs.pop)
      text = job.to_s
      1500.times { text = Digest::SHA256.hexdigest(text) }
      sleep 0.001
      results << [job, text]
    end
  end
end
ROUNDS.times { |job| jobs << job }
found = {}
ROUNDS.times do |round|
  job, text = Timeout.timeout(60) { results.pop }
  found[job] = text
  raise "it is #{Process.pid} and was #{own}" unless Process.pid == own && $$ == own
  if round % 100 == 0
    before = came
    Process.kill('USR2', $$)
    Timeout.timeout(60) { sleep 0.001 until came > before }
    pid = fork { exit!(Process.ppid == own ? 7 : 8) }
    Process.wait(pid)
    puts "done #{found.size} child #{$?.exitstatus}"
    $stdout.flush
  end
end
3.times { jobs << nil }
workers.each(&:join)
puts "total #{Digest::SHA256.hexdigest(ROUNDS.times.map { |i| found[i] }.join)}"
