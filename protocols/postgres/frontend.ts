import { copyOf, Keep, zeroIn } from "../../core/bytes/copy.ts";
import { SluiceError } from "../../core/errors.ts";
import { LIMITS as limits } from "../../core/limits.ts";
import type { Refused } from "../../core/verdict.ts";
import { NameReader, readBind } from "./bind.ts";
import { copyDataPasses, copyInEnds, inCopyIn } from "./copy-in.ts";
import { type Decision, UNKNOWN_RELATION } from "./decide.ts";
import { refusalResponse, sqlState } from "./deny.ts";
import { ask, matters, mattersToStatement } from "./doubt.ts";
import { sentEffects } from "./effects.ts";
import { FORWARD_AND_ADD, FORWARD as forward, HOLD as hold, MessageFramer, type MessageVisitor, REPLACE } from "./frame.ts";
import { describe, FRONTEND_LIMITS, flush, parse, query, TYPE as types } from "./messages.ts";
import { Subject } from "./moment.ts";
import { NamedOperations } from "./named.ts";
import { utf8 } from "./notices.ts";
import type { Pending, PendingKind } from "./pending.ts";
import { FUNCTION_CALL, heldRefusal, maskRefusal, REFUSED_PARSE, REFUSED_QUERY, redact, unknownName } from "./refused.ts";
import type { Relay } from "./relay.ts";
import { unmaskable } from "./rows.ts";
import { ClientSide } from "./sides.ts";
import type { Classified } from "./sql/types.ts";
import { type Portal, type PreparedStatement, recordOf } from "./statements.ts";
import { certain } from "./uncommitted.ts";

const [LIMITS, TYPE, FORWARD, HOLD] = [limits, types, forward, hold] as const; // Of its own, as in frame.ts.
const FLUSH = flush();
const NO_BYTES = new Uint8Array(0);
/** Parameters of the portals of all sessions of this thread. */
const kept = new Keep();

/** The client's side of a session: every message is looked up, inspected, decided, recorded, and only then sent on. */
export class FrontendReader extends ClientSide implements MessageVisitor {
  readonly #framer: MessageFramer;
  readonly #named: NamedOperations;
  readonly #nameReader = new NameReader();
  readonly #subject: Subject;
  /** Found while the present message was held. */
  #classified: Classified | undefined;
  #fresh = false;
  replacement: Uint8Array | undefined;
  readonly passesEnding = -1;
  /** The message being emitted carries a secret: these bytes go on record instead of it. */
  #redacted: Uint8Array | undefined;
  /** Terminate came; the session ends once what came before it in the same read has gone out. */
  #terminated = false;

  constructor(relay: Relay) {
    super(relay);
    this.#framer = new MessageFramer(this);
    this.#named = new NamedOperations(relay);
    this.#subject = new Subject(relay);
  }

  get held(): boolean {
    return this.#framer.held;
  }

  push(bytes: Uint8Array, start: number, end: number): void {
    this.relay.room.counters.fromClientBytes += end - start;
    this.relay.active = true;
    this.#framer.push(bytes, start, end);
    if (this.#terminated) this.relay.terminated();
    if (this.relay.queue.size > LIMITS.pipelineDepth) this.relay.pipelineFull();
  }

  resume(): void {
    this.#framer.resume();
    if (this.#terminated) this.relay.terminated();
    this.relay.resumeClient();
  }

  stop(): void {
    this.#framer.stop();
  }

  limit(type: number): number {
    return FRONTEND_LIMITS[type];
  }

  streams(type: number): boolean {
    return type === TYPE.copyData;
  }

  passesUpTo(type: number, _bytes: Uint8Array, start: number, available: number): number {
    return type === TYPE.copyData && copyDataPasses(this.relay) ? available : start;
  }

  passed(): void {
    this.relay.copyStarted = true;
  }

  run(bytes: Uint8Array, start: number, end: number): void {
    this.relay.recorder.fromClient(bytes, start, end);
    this.relay.sendToServer(bytes, start, end);
  }

  emit(replacement: Uint8Array | undefined, answer: number, bytes: Uint8Array, start: number, end: number): void {
    if (answer === REPLACE) {
      const recorded = this.#redacted;
      this.#redacted = undefined;
      if (recorded === undefined) this.relay.recorder.fromClient(bytes, start, end);
      else this.relay.recorder.fromClient(recorded, 0, recorded.length);
    }
    if (replacement !== undefined) this.relay.sendToServer(replacement, 0, replacement.length);
  }

  message(type: number, bytes: Uint8Array, start: number, end: number): number {
    const relay = this.relay;
    if (relay.skipping && type !== TYPE.terminate) {
      // The server ignores everything up to Sync, so nothing of it is decided, recorded as an operation, or sent.
      this.#classified = undefined;
      this.#fresh = false;
      if (type !== TYPE.sync) return REPLACE;
      relay.skipping = false;
    }
    if (relay.copyAwaited && type !== TYPE.terminate) {
      // Whether this is for the COPY or for what comes behind it shows only when the server has answered.
      relay.hold(relay.copyAnswered());
      return HOLD;
    }
    if (relay.quotas?.mustWait(type) === true) {
      // Without Sync the server keeps its answers to itself.
      this.replacement = FLUSH;
      relay.hold(relay.quotas.inStep());
      return HOLD;
    }
    switch (type) {
      case TYPE.copyData:
        relay.copyStarted = true;
        return FORWARD;
      case TYPE.flush:
        return FORWARD;
      case TYPE.copyDone:
      case TYPE.copyFail:
        copyInEnds(relay);
        return FORWARD;
      case TYPE.terminate:
        this.#terminated = true;
        return REPLACE;
      default:
    }
    if (relay.copyIn) return inCopyIn(relay, type);
    switch (type) {
      case TYPE.query: {
        const answer = this.#query(bytes, start, end);
        if (answer !== HOLD) relay.names.pipeline += 1;
        return answer;
      }
      case TYPE.parse:
        return this.#sent(this.#parse(bytes, start, end));
      case TYPE.bind:
        return this.#sent(this.#bind(bytes, start, end));
      case TYPE.execute:
        return this.#sent(this.#execute(bytes, start, end));
      case TYPE.describe:
        return this.#sent(this.#describe(bytes, start, end));
      case TYPE.close:
        return this.#sent(this.#close(bytes, start, end));
      case TYPE.sync:
        relay.queue.push("sync");
        relay.names.pipeline += 1;
        relay.inPipeline = false;
        return FORWARD;
      case TYPE.functionCall:
        relay.names.pipeline += 1;
        return this.#functionCall();
      default:
        throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", `message type '${String.fromCharCode(type)}' is not let through`);
    }
  }

  #sent(answer: number): number {
    if (answer !== HOLD) this.relay.inPipeline = true;
    return answer;
  }

  /** The message waits until the server has answered more of what it was sent before. */
  #awaitAnswer(): number {
    this.relay.hold(this.relay.nextAnswer());
    return HOLD;
  }

  #query(bytes: Uint8Array, start: number, end: number): number {
    const textStart = start + 5;
    const textEnd = end - 1;
    if (textEnd < textStart || bytes[textEnd] !== 0)
      throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "Query without its terminating zero");
    const classified = this.#classify(bytes, textStart, textEnd);
    if (classified === undefined) return HOLD;
    const effects = classified.effects.length > 0;
    if (effects && this.#named.uncertain(classified)) return this.#awaitAnswer();
    const effective = effects ? this.#named.withNamed(classified) : classified;
    const movedPath = effects && this.#named.movedPath(classified, undefined);
    const decided = this.#decide(effective, bytes, textStart, textEnd, undefined, undefined, movedPath);
    if (decided === "hold") return HOLD;
    const relay = this.relay;
    const decision = relay.quotas?.judge(decided, effective, true) ?? decided;
    const secret = classified.secrets.length > 0;
    const recorded = secret ? redact(bytes.subarray(textStart, textEnd), classified.secrets) : undefined;
    const request =
      recorded === undefined
        ? relay.recorder.intent(decision.record, undefined, bytes, textStart, textEnd)
        : relay.recorder.intent(decision.record, undefined, recorded, 0, recorded.length);
    if (recorded !== undefined) this.#redacted = query(utf8(recorded, 0, recorded.length));
    if (decision.verdict.kind !== "allowed") return this.#refuse("query", decision, decision.verdict, request);
    const entry = this.#allow("query", decision, request, effective);
    const opening = relay.quotas?.admitted(entry, effective);
    if (effective.copy === "in") relay.copyAwaited = true;
    if (!secret && opening === undefined) return FORWARD;
    // Forwarded as it is, recorded without the secret.
    this.replacement = Buffer.concat([opening ?? NO_BYTES, bytes.subarray(start, end)]);
    return REPLACE;
  }

  #parse(bytes: Uint8Array, start: number, end: number): number {
    const nameEnd = zeroIn(bytes, start + 5, end);
    const textEnd = nameEnd < 0 ? -1 : zeroIn(bytes, nameEnd + 1, end);
    if (nameEnd < 0 || textEnd < 0 || textEnd + 3 > end) throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "malformed Parse message");
    const types = (bytes[textEnd + 1] << 8) | bytes[textEnd + 2];
    if (textEnd + 3 + types * 4 !== end) throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "malformed Parse message");
    const classified = this.#classify(bytes, nameEnd + 1, textEnd);
    if (classified === undefined) return HOLD;
    if (classified.effects.length > 0 && this.#named.uncertain(classified)) return this.#awaitAnswer();
    const relay = this.relay;
    const effective = this.#named.withNamed(classified);
    const decision = this.#decide(effective, bytes, nameEnd + 1, textEnd, undefined, undefined, false);
    if (decision === "hold") return HOLD;
    const name = this.#nameReader.read(bytes, start + 5, nameEnd);
    const shown = classified.secrets.length > 0 ? redact(bytes.subarray(nameEnd + 1, textEnd), classified.secrets) : undefined;
    const record =
      shown === undefined ? recordOf(classified, bytes, nameEnd + 1, textEnd) : { text: utf8(shown, 0, shown.length), storeSlot: -1 };
    if (shown !== undefined) this.#redacted = parse(name, record.text);
    // A verdict that depends on parameters or time is only final at Execute; what is refused without them is refused here.
    if (decision.verdict.kind !== "allowed" && decision.verdict.stable) {
      const request = relay.recorder.intent(decision.record, record, NO_BYTES, 0, 0);
      return this.#refuse("parse", decision, decision.verdict, request);
    }
    const statement: PreparedStatement = {
      classified,
      text: record.text,
      record,
      columns: undefined,
      describedIn: undefined,
      describedAt: 0,
    };
    const entry = relay.queue.push("parse");
    entry.statement = statement;
    entry.change = relay.names.setStatement(name, statement);
    const forwarded = shown === undefined ? undefined : copyOf(bytes, start, end);
    if (decision.masksColumns || (decision.masksContent && name !== "")) {
      const own = relay.queue.push("describe");
      own.own = true;
      own.statement = statement;
      const question = describe("S", name);
      this.replacement = forwarded === undefined ? question : Buffer.concat([forwarded, question]);
      return forwarded === undefined ? FORWARD_AND_ADD : REPLACE;
    }
    if (forwarded === undefined) return FORWARD;
    this.replacement = forwarded;
    return REPLACE;
  }

  #bind(bytes: Uint8Array, start: number, end: number): number {
    const bind = readBind(bytes, start, end, this.#nameReader);
    const relay = this.relay;
    const version = relay.names.statements.find(bind.statement);
    if (version?.holdsIn(relay.names.pipeline) === false) return this.#awaitAnswer();
    const statement = version?.value;
    // The server looks the statement's names up now.
    if (statement !== undefined && relay.searchPath.value === undefined && !relay.inPipeline) {
      if (mattersToStatement(relay, statement, this.#named.withNamed(statement.classified)) && this.#asks()) return HOLD;
    }
    const entry = relay.queue.push("bind");
    if (statement === undefined) {
      // The server holds no such statement either and will say so; a statement that came into being without us is refused.
      return this.#unknownName(entry, "prepared statement", bind.statement);
    }
    const parametersStart = kept.keep(bytes, bind.parametersStart, bind.parametersEnd);
    const portal: Portal = {
      statement,
      parameters: kept.chunk,
      parametersStart,
      parametersEnd: parametersStart + bind.parametersEnd - bind.parametersStart,
      formats: bind.resultFormats,
      searchPath: relay.searchPath.value,
    };
    entry.change = relay.names.setPortal(bind.portal, portal);
    entry.parameterBytes = portal.parametersEnd - parametersStart;
    relay.parameterBytes += entry.parameterBytes;
    if (relay.parameterBytes > LIMITS.pendingParameterBytes) {
      throw new SluiceError("SLUICE_LIMIT_EXCEEDED", `more than ${LIMITS.pendingParameterBytes} bytes of parameters await their answers`, {
        hint: "Send Sync more often.",
      });
    }
    return FORWARD;
  }

  #execute(bytes: Uint8Array, start: number, end: number): number {
    const nameEnd = zeroIn(bytes, start + 5, end);
    if (nameEnd < 0 || nameEnd + 5 !== end) throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "malformed Execute message");
    const relay = this.relay;
    const portalName = this.#nameReader.read(bytes, start + 5, nameEnd);
    const version = relay.names.portals.find(portalName);
    if (version?.holdsIn(relay.names.pipeline) === false) return this.#awaitAnswer();
    const portal = version?.value;
    if (portal === undefined) return this.#unknownName(relay.queue.push("execute"), "portal", portalName);
    const statement = portal.statement;
    if (statement.classified.effects.length > 0 && this.#named.uncertain(statement.classified)) return this.#awaitAnswer();
    // What an EXECUTE or FETCH stands for may have changed since it was parsed.
    const classified = this.#named.withNamed(statement.classified);
    const decided = this.#decide(classified, undefined, 0, 0, statement, portal, this.#named.movedPath(classified, portal));
    if (decided === "hold") return HOLD;
    const decision = relay.quotas?.judge(decided, classified, false) ?? decided;
    const request = relay.recorder.intent(
      decision.record,
      statement.record,
      portal.parameters,
      portal.parametersStart,
      portal.parametersEnd,
    );
    if (decision.verdict.kind !== "allowed") return this.#refuse("execute", decision, decision.verdict, request);
    if (decision.masksColumns || decision.masksContent) {
      // COPY has a format of its own, whatever Bind says.
      const formats = decision.copies.length > 0 ? "text" : portal.formats;
      const why = unmaskable(relay.context().masks, decision.masksColumns, statement.columns, formats);
      if (why !== undefined) return this.#refuse("execute", decision, maskRefusal(decision, relay.policy.policyVersion, why), request);
    }
    const joined = classified !== statement.classified && (decision.masksColumns || decision.masksContent);
    // In another context the statement's names may mean other tables than when it was described.
    const stale = statement.describedIn !== relay.context() || statement.describedAt !== relay.schemaEpoch;
    const described = joined || (decision.masksColumns && stale);
    if (described) {
      // The columns are those of what it stands for at this moment: ask for them.
      const own = relay.queue.push("describe");
      own.own = true;
      own.statement = statement;
    }
    const entry = this.#allow("execute", decision, request, classified);
    entry.statement = statement;
    entry.portal = portal;
    relay.quotas?.admitted(entry, classified);
    if (described) {
      this.replacement = Buffer.concat([describe("P", portalName), bytes.subarray(start, end)]);
      return REPLACE;
    }
    if (classified.copy !== "in") return FORWARD;
    relay.copyAwaited = true;
    this.replacement = FLUSH;
    return FORWARD_AND_ADD;
  }

  #describe(bytes: Uint8Array, start: number, end: number): number {
    if (end - start < 7 || bytes[end - 1] !== 0) throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "malformed Describe message");
    const relay = this.relay;
    const name = this.#nameReader.read(bytes, start + 6, end - 1);
    if (bytes[start + 5] === 0x53) {
      const version = relay.names.statements.find(name);
      if (version?.holdsIn(relay.names.pipeline) === false) return this.#awaitAnswer();
      const entry = relay.queue.push("describe");
      entry.statement = version?.value;
      return entry.statement === undefined ? this.#unknownName(entry, "prepared statement", name) : FORWARD;
    }
    if (bytes[start + 5] !== 0x50) throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "malformed Describe message");
    const version = relay.names.portals.find(name);
    if (version?.holdsIn(relay.names.pipeline) === false) return this.#awaitAnswer();
    const entry = relay.queue.push("describe");
    entry.statement = version?.value?.statement;
    return entry.statement === undefined ? this.#unknownName(entry, "portal", name) : FORWARD;
  }

  #close(bytes: Uint8Array, start: number, end: number): number {
    if (end - start < 7 || bytes[end - 1] !== 0) throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "malformed Close message");
    const name = this.#nameReader.read(bytes, start + 6, end - 1);
    const { names, queue } = this.relay;
    const entry = queue.push("close");
    entry.change = bytes[start + 5] === 0x53 ? names.deleteStatement(name) : names.deletePortal(name);
    return FORWARD;
  }

  #functionCall(): number {
    const relay = this.relay;
    this.#subject.set(undefined, undefined, 0, 0, undefined);
    const decision = relay.context().decide(FUNCTION_CALL, this.#subject.moment, true);
    if (decision === UNKNOWN_RELATION || decision.verdict.kind === "allowed")
      throw new SluiceError("SLUICE_INTERNAL", "FunctionCall was not refused");
    const request = relay.recorder.intent(decision.record, undefined, NO_BYTES, 0, 0);
    return this.#refuse("query", decision, decision.verdict as Refused, request);
  }

  /** undefined: the message is held until the classification is there. */
  #classify(bytes: Uint8Array, start: number, end: number): Classified | undefined {
    const { classifier } = this.relay.room;
    const known = this.#classified ?? classifier.known(bytes, start, end);
    if (known !== undefined) return known;
    if (end - start > LIMITS.statementBytes)
      throw new SluiceError("SLUICE_LIMIT_EXCEEDED", `a statement of more than ${LIMITS.statementBytes} bytes`);
    const classified = classifier.classify(bytes, start, end);
    if (!(classified instanceof Promise)) return classified;
    const found = classified.then((each) => void (this.#classified = each));
    this.relay.hold(found);
    return undefined;
  }

  #decide(
    classified: Classified,
    bytes: Uint8Array | undefined,
    start: number,
    end: number,
    statement: PreparedStatement | undefined,
    portal: Portal | undefined,
    movedPath: boolean,
  ): Decision | "hold" {
    const relay = this.relay;
    const settling = classified.accesses.length > 0 ? relay.settling() : undefined;
    if (settling !== undefined) {
      // Names may mean something else once a schema change is through. Flush makes the server answer what it was sent so far.
      this.replacement = FLUSH;
      relay.hold(settling);
      return "hold";
    }
    const fresh = this.#fresh;
    this.#subject.set(statement, bytes, start, end, portal);
    const decision = (movedPath ? relay.contextOfAnyPath() : relay.context()).decide(classified, this.#subject.moment, fresh);
    if (decision === UNKNOWN_RELATION) {
      this.#classified = classified === FUNCTION_CALL ? undefined : this.#classified;
      this.#fresh = true;
      relay.hold(relay.catalogue.refresh());
      return "hold";
    }
    if (
      relay.searchPath.value === undefined &&
      !relay.inPipeline &&
      (relay.searchPath.urgent || (!movedPath && matters(decision, classified)))
    ) {
      // #classified stays for when the message is presented again.
      if (this.#asks()) return "hold";
    }
    this.#classified = undefined;
    this.#fresh = false;
    return certain(relay, decision, classified);
  }

  /** search_path or role are in doubt: the message waits for the server's word. False: there is none to be had now. */
  #asks(): boolean {
    const relay = this.relay;
    if (!relay.searchPath.underWay) {
      if (!relay.searchPath.askable || relay.transactionStatus === 0x45) return false;
      this.replacement = ask(relay);
    }
    this.#awaitAnswer();
    return true;
  }

  #allow(kind: PendingKind, decision: Decision, request: number, classified: Classified): Pending {
    const relay = this.relay;
    if (!relay.mayRun())
      throw new SluiceError("SLUICE_CREDENTIAL_EXPIRED", "your credential has expired", { hint: "Sign in again and reconnect." });
    relay.room.counters.decided(relay.grant.target.name, "allow", undefined);
    relay.operations += 1;
    const entry = relay.queue.push(kind);
    entry.request = request;
    entry.decision = decision;
    entry.classified = classified;
    entry.masks = decision.masksColumns || decision.masksContent;
    if (decision.verdict.kind === "allowed" && decision.verdict.record !== undefined)
      relay.recorder.override(request, decision.verdict.record);
    if (classified.effects.length > 0) sentEffects(relay, entry, classified);
    if (decision.moves > 0 || relay.objectsChanged) {
      entry.moves = decision.moves === 0 ? 1 : decision.moves;
      relay.searchPath.sent(entry.moves === 2);
    }
    return entry;
  }

  #refuse(kind: PendingKind, decision: Decision, verdict: Decision["verdict"], request: number): number {
    const relay = this.relay;
    relay.operations += 1;
    const refusal: Refused = verdict.kind === "refused" ? verdict : heldRefusal(verdict.rule, verdict.policyVersion);
    relay.room.counters.decided(relay.grant.target.name, "deny", refusal.rule);
    relay.recorder.outcome(request, "denied", 0, 0, { code: sqlState(refusal.code), message: refusal.message }, undefined);
    const entry = Object.assign(relay.queue.push(kind), { request, decision });
    entry.refusal = refusalResponse(refusal, `${relay.id}/${request}`);
    this.replacement = kind === "query" ? REFUSED_QUERY : REFUSED_PARSE;
    // The server will fail what it gets instead, and ignores all up to Sync.
    if (kind !== "query") relay.skipping = true;
    return REPLACE;
  }

  /**
   * A name that this session did not make. The server does not know it either and would say so; were it otherwise, this
   * answer stands.
   */
  #unknownName(entry: Pending, what: "prepared statement" | "portal", name: string): number {
    entry.refusal = unknownName(what, name);
    this.replacement = REFUSED_PARSE;
    this.relay.skipping = true;
    return REPLACE;
  }
}
