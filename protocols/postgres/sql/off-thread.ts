import { Worker } from "node:worker_threads";
import { type Judged, refusedText, uncached } from "./judge.ts";

/** Of the thread's own processor time: on a busy machine a text takes longer without being any harder. */
const DEADLINE_MILLIS = 2_000;
/** So many deadlines by the clock end it in any case. */
const PATIENCE = 5;
/** The thread's time is asked again after this at least. */
const CHECK_MILLIS = 20;
const START_MILLIS = 10_000;
/** Texts that wait for the thread, in number and bytes; beyond it they are refused. */
const WAITING = 256;
const WAITING_BYTES = 64 * 1024 * 1024;

interface Job {
  readonly text: Uint8Array;
  readonly bytes: number;
  readonly done: (judged: Judged) => void;
}

const TOO_LONG = "The statement is refused: checking it took too long.";

/** Processor time of a thread so far. Resolves when the thread gets to an answer; to no number once it has ended. */
const processorMillis = (worker: Worker): Promise<number> =>
  worker.cpuUsage().then(
    ({ user, system }) => (user + system) / 1_000,
    () => Number.NaN,
  );

const refuse = (sentence: string): Judged => uncached(refusedText(sentence));

/** Classifies texts on a thread of its own, one after the other, each within a deadline. */
export class OffThread {
  readonly #entry: URL;
  readonly #deadlineMillis: number;
  readonly #waiting: Job[] = [];
  #waitingBytes = 0;
  #worker: Worker | undefined;
  #ready = false;
  #running: Job | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Asks for the thread's processor time once the deadline may have passed. */
  #check: NodeJS.Timeout | undefined;
  #closed = false;

  /** @param deadlineMillis of the thread's processor time for one text, and five times as long by the clock */
  constructor(entry: URL = new URL("./parse-thread.ts", import.meta.url), deadlineMillis: number = DEADLINE_MILLIS) {
    this.#entry = entry;
    this.#deadlineMillis = deadlineMillis;
  }

  /** Resolves always; a text that takes too long, or finds too many waiting, is refused. */
  judge(text: Uint8Array): Promise<Judged> {
    if (this.#closed) return Promise.resolve(refuse("The statement is refused: the gateway is closing."));
    if (this.#waiting.length >= WAITING || this.#waitingBytes + text.length > WAITING_BYTES) {
      return Promise.resolve(refuse("The statement is refused: too many long statements are waiting to be checked. Try again later."));
    }
    return new Promise((done) => {
      this.#waiting.push({ text, bytes: text.length, done });
      this.#waitingBytes += text.length;
      this.#next();
    });
  }

  #next(): void {
    if (this.#running !== undefined || this.#waiting.length === 0) return;
    if (this.#worker === undefined) this.#start();
    if (!this.#ready) return;
    const job = this.#waiting.shift();
    if (job === undefined) return;
    this.#waitingBytes -= job.bytes;
    this.#running = job;
    const worker = this.#worker;
    worker?.ref();
    this.#timer = setTimeout(() => this.#abandon(TOO_LONG), PATIENCE * this.#deadlineMillis);
    if (worker !== undefined) this.#watch(worker, job);
    worker?.postMessage(job.text);
  }

  /** Ends the thread when this job has taken its share. A thread that does not answer how much it took is left to the clock. */
  #watch(worker: Worker, job: Job): void {
    const usedBefore = processorMillis(worker);
    const check = async (): Promise<void> => {
      const used = (await processorMillis(worker)) - (await usedBefore);
      if (this.#worker !== worker || this.#running !== job) return;
      const left = this.#deadlineMillis - used;
      if (Number.isNaN(left)) return;
      if (left <= 0) this.#abandon(TOO_LONG);
      else again(Math.max(CHECK_MILLIS, left));
    };
    const again = (millis: number): void => {
      this.#check = setTimeout(() => void check(), millis);
    };
    again(this.#deadlineMillis);
  }

  #start(): void {
    const worker = new Worker(this.#entry, { resourceLimits: { maxOldGenerationSizeMb: 1024 }, stdout: false });
    this.#worker = worker;
    this.#ready = false;
    this.#timer = setTimeout(() => this.#abandon("The statement is refused: it could not be checked."), START_MILLIS);
    worker.on("message", (message: "ready" | Judged) => {
      if (this.#worker !== worker) return;
      this.#stopTimers();
      if (message === "ready") this.#ready = true;
      else {
        const job = this.#running;
        this.#running = undefined;
        worker.unref();
        job?.done(message);
      }
      this.#next();
    });
    const failed = (): void => {
      if (this.#worker === worker) this.#abandon("The statement is refused: it is too large to be checked.");
    };
    worker.on("error", failed);
    worker.on("exit", failed);
  }

  #stopTimers(): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#check);
  }

  /** End the thread; what it was at is refused, what waits goes to a new one. A thread that does not start refuses all that wait. */
  #abandon(sentence: string): void {
    this.#stopTimers();
    const jobs = this.#running !== undefined ? [this.#running] : this.#waiting.splice(0);
    if (this.#running === undefined) this.#waitingBytes = 0;
    this.#running = undefined;
    this.#ready = false;
    this.#worker?.terminate().catch(() => undefined);
    this.#worker = undefined;
    for (const job of jobs) job.done(refuse(sentence));
    this.#next();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#stopTimers();
    const jobs = [...(this.#running === undefined ? [] : [this.#running]), ...this.#waiting.splice(0)];
    this.#waitingBytes = 0;
    this.#running = undefined;
    const worker = this.#worker;
    this.#worker = undefined;
    for (const job of jobs) job.done(refuse("The statement is refused: the gateway is closing."));
    await worker?.terminate();
  }
}
