import { Worker } from "node:worker_threads";
import { type Judged, refusedText, uncached } from "./judge.ts";

const DEADLINE_MILLIS = 2_000;
const START_MILLIS = 10_000;
/** Texts that wait for the thread, in number and bytes; beyond it they are refused. */
const WAITING = 256;
const WAITING_BYTES = 64 * 1024 * 1024;

interface Job {
  readonly text: Uint8Array;
  readonly bytes: number;
  readonly done: (judged: Judged) => void;
}

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
  #closed = false;

  /** @param deadlineMillis for one text, from when the thread takes it up */
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
    this.#worker?.ref();
    this.#timer = setTimeout(() => this.#abandon("The statement is refused: checking it took too long."), this.#deadlineMillis);
    this.#worker?.postMessage(job.text);
  }

  #start(): void {
    const worker = new Worker(this.#entry, { resourceLimits: { maxOldGenerationSizeMb: 1024 }, stdout: false });
    this.#worker = worker;
    this.#ready = false;
    this.#timer = setTimeout(() => this.#abandon("The statement is refused: it could not be checked."), START_MILLIS);
    worker.on("message", (message: "ready" | Judged) => {
      if (this.#worker !== worker) return;
      clearTimeout(this.#timer);
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

  /** End the thread; what it was at is refused, what waits goes to a new one. A thread that does not start refuses all that wait. */
  #abandon(sentence: string): void {
    clearTimeout(this.#timer);
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
    clearTimeout(this.#timer);
    const jobs = [...(this.#running === undefined ? [] : [this.#running]), ...this.#waiting.splice(0)];
    this.#waitingBytes = 0;
    this.#running = undefined;
    const worker = this.#worker;
    this.#worker = undefined;
    for (const job of jobs) job.done(refuse("The statement is refused: the gateway is closing."));
    await worker?.terminate();
  }
}
