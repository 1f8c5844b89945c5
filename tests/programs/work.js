// Timers, promises and worker threads. Nothing that it prints depends on time.
const { Worker, isMainThread, parentPort } = require('worker_threads');
const { createHash } = require('crypto');

if (!isMainThread) {
  parentPort.on('message', (job) => {
    let hash = String(job);
    for (let i = 0; i < 1500; i++) hash = createHash('sha256').update(hash).digest('hex');
    const list = Array.from({ length: 20000 }, (_, i) => ({ key: (i * 7919 + job) % 10007, text: hash.slice(i % 50) }));
    list.sort((a, b) => a.key - b.key);
    parentPort.postMessage([job, hash.slice(0, 8) + list[777].key]);
  });
} else {
  const ROUNDS = 120;
  const workers = [0, 1].map(() => new Worker(__filename));
  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
  const busy = setInterval(() => {}, 2);
  const ask = (worker, job) =>
    new Promise((done) => {
      worker.once('message', done);
      worker.postMessage(job);
    });
  const line = async (worker, first, all) => {
    for (let job = first; job < ROUNDS; job += 2) {
      const [number, text] = await ask(worker, job);
      all[number] = text;
      await sleep(1);
      if (job % 20 === 0) console.log('done', job);
    }
  };
  (async () => {
    const all = [];
    await Promise.all(workers.map((worker, i) => line(worker, i, all)));
    clearInterval(busy);
    const total = createHash('sha256').update(all.join()).digest('hex');
    console.log('total', total, all.length);
    for (const worker of workers) worker.terminate();
  })();
}
