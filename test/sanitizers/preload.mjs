// Loaded with `node --import` into every thread of a process under test: it gets the addons of SLUICE_TEST_ADDONS, and no
// others. The product itself knows one folder only; whoever can preload a module needs no further way in.
import { registerHooks } from "node:module";
import { join } from "node:path";

const ADDON = /\/core\/native\/build\/Release\/(sluice_\w+\.node)$/;
const folder = process.env.SLUICE_TEST_ADDONS;

registerHooks({
  resolve: (specifier, context, next) => {
    const name = ADDON.exec(specifier)?.[1];
    return next(name === undefined ? specifier : join(folder, name), context);
  },
});
