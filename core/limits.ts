/**
 * Every bound of the data path in one place. Names carry their unit last. A length from the wire is
 * compared with one of these before anything is allocated for it.
 */
export const LIMITS = {
  /** A client must finish startup, TLS and authentication within this. */
  handshakeMillis: 15_000,
  /** Connecting to a target and authenticating there. */
  dialMillis: 10_000,
  /** A proxy's header with everything behind it; its specification promises senders no more (section 2). */
  proxyHeaderBytes: 536,
  /** PostgreSQL's own MAX_STARTUP_PACKET_LENGTH. */
  startupPacketBytes: 10_000,
  startupParameters: 64,
  /** A password message (it carries a token). */
  credentialBytes: 65_536,
  /** One message before authentication, either leg. */
  handshakeMessageBytes: 65_536,
  /** One frontend message that must be read whole (Query, Parse, Bind, …). */
  frontendMessageBytes: 64 * 1024 * 1024,
  /** One backend message that must be read whole (a DataRow that may be masked, an ErrorResponse). */
  inspectedBackendMessageBytes: 16 * 1024 * 1024,
  /** A value in which detectors suspect something is read by the exact matchers up to this size; a larger one is replaced whole. */
  maskedValueBytes: 128 * 1024,
  /** The same for all values of one row together; what is read again, and the matches, count with it. */
  maskedRowBytes: 160 * 1024,
  /** Elements of the arrays of one row, in binary format, that are searched one by one; a long number counts as several. */
  maskedElements: 16 * 1024,
  /** Of one row: bytes that look like what detectors look for (digits in groups) and are read closely by the prefilter. */
  suspiciousBytes: 2 * 1024 * 1024,
  /** Backend messages that pass through without being read whole; PostgreSQL's own limit is 1 GiB. */
  backendMessageBytes: 0x3fff_ffff,
  /** Unsent bytes to one peer above which the opposite side is no longer read. */
  backlogHighBytes: 256 * 1024,
  backlogLowBytes: 64 * 1024,
  /** Client messages that await their answers; above it the client is no longer read. */
  pipelineDepth: 4_096,
  /** Bind parameters of one session that are kept for messages awaiting their answers. */
  pendingParameterBytes: 128 * 1024 * 1024,
  preparedStatements: 10_000,
  /** Parameters of all portals of one session together, and texts of its prepared statements, checked when one of namedLargeBytes comes. */
  namedBytes: 128 * 1024 * 1024,
  namedLargeBytes: 16 * 1024,
  /** One statement's text; longer is refused. */
  statementBytes: 16 * 1024 * 1024,
  /** Statements over this are parsed away from the worker's own loop. */
  inlineParseBytes: 4 * 1024,
  /** Cached classifications of one worker. */
  cachedShapes: 20_000,
  scramIterations: 10_000_000,
  /** Columns of all relations of one target that its catalogue may hold. */
  catalogueColumns: 500_000,
  /** Sessions that wait for a place at one target, all workers' share of one target counted per worker. */
  dialQueue: 1_000,
  dialQueueMillis: 10_000,
  drainMillis: 30_000,
} as const;
