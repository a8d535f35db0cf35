import { journalIfBuilt } from "./addons.ts";

/** Memory that begins at a multiple of `unit`, as direct writes need it; anywhere where there is no addon. What is in it is left over from others. */
export function alignedBuffer(length: number, unit: number): Buffer {
  const native = journalIfBuilt();
  if (native === null) return Buffer.allocUnsafeSlow(length);
  const whole = Buffer.allocUnsafeSlow(length + unit);
  // The memory of a buffer of this kind is not moved.
  const start = (unit - native.misalignment(whole, unit)) % unit;
  return whole.subarray(start, start + length);
}

/**
 * Have what is written to a descriptor go past the page cache (O_DIRECT, open(2)), or not. Then places, lengths and memory have to be aligned;
 * file systems that agree here may still refuse the write (EINVAL).
 * @returns whether it is as wanted now; always where that means through the page cache
 */
export function setDirect(fd: number, wanted: boolean): boolean {
  const native = journalIfBuilt();
  return native === null ? !wanted : native.direct(fd, wanted) === 0;
}
