// Frames, ways in and ways out once more, with gateways that use Node.js's sockets in place of the pump. The whole suite runs so
// in `npm run soak -- --part sockets`.
process.env["SLUICE_TRANSPORT"] = "sockets";
await import("./wire.test.ts");
await import("./legs.test.ts");
