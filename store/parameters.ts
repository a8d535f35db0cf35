/**
 * Parameters of a prepared statement's execution, as the intent keeps them: PostgreSQL's Bind message from the count of
 * parameter formats on (protocol-message-formats.html, "Bind"), big-endian:
 *
 *    i16 n, n × i16 format (0 text, 1 binary; none: all text; one: for all)
 *    i16 m, m × (i32 length or −1 for NULL, bytes)
 *
 * @returns text values as they are, binary ones as `\x` and hexadecimal digits, null for NULL; undefined when the bytes
 * are not of that form
 */
export function decodeParameters(bytes: Buffer): (string | null)[] | undefined {
  let at = 0;
  const have = (length: number): boolean => length >= 0 && bytes.length - at >= length;
  if (!have(2)) return undefined;
  const formatCount = bytes.readUInt16BE(at);
  at += 2;
  if (!have(formatCount * 2 + 2)) return undefined;
  const formatsAt = at;
  at += formatCount * 2;
  const count = bytes.readUInt16BE(at);
  at += 2;
  const values: (string | null)[] = [];
  for (let index = 0; index < count; index += 1) {
    if (!have(4)) return undefined;
    const length = bytes.readInt32BE(at);
    at += 4;
    if (length === -1) {
      values.push(null);
      continue;
    }
    if (!have(length)) return undefined;
    const formatIndex = formatCount === 1 ? 0 : index;
    const binary = formatIndex < formatCount && bytes.readUInt16BE(formatsAt + formatIndex * 2) === 1;
    values.push(binary ? `\\x${bytes.toString("hex", at, at + length)}` : bytes.toString("utf8", at, at + length));
    at += length;
  }
  return values;
}
