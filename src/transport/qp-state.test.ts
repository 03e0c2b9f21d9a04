// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { Network } from "./network.fixture.js";
import {
  checkTransition,
  QP_STATE,
  QP_STATE_NAMES,
  QP_TYPE,
  type QpAttributes,
  type QpState,
  type QpType,
} from "./qp-state.js";

const network = new Network(["10.79.0.2", "10.79.0.3"], {});
const flow = network.host(0).device.flow(0, network.host(1).address);

/**
 * Everything that each legal move needs, and nothing else; the table of the facts page, section 13.
 */
const RC_REQUIRED: Record<string, QpAttributes> = {
  "RESET>INIT": { pkeyIndex: 0, port: 0, accessFlags: 0 },
  "INIT>INIT": {},
  "INIT>RTR": {
    addressVector: { flow },
    pathMtu: 1024,
    destinationQpn: 5,
    rqPsn: 6,
    maxDestRdAtomic: 1,
    minRnrTimer: 12,
  },
  "RTR>RTS": { timeout: 14, retryCount: 7, rnrRetry: 7, sqPsn: 1, maxRdAtomic: 1 },
  "RTS>RTS": {},
  "RTS>SQD": {},
  "SQD>RTS": {},
  "SQD>SQD": {},
};
const UD_REQUIRED: Record<string, QpAttributes> = {
  "RESET>INIT": { pkeyIndex: 0, port: 0, qkey: 1 },
  "INIT>INIT": {},
  "INIT>RTR": {},
  "RTR>RTS": { sqPsn: 1 },
  "RTS>RTS": {},
  "RTS>SQD": {},
  "SQD>RTS": {},
  "SQD>SQD": {},
  "SQE>RTS": {},
};

const ALL_STATES = Object.values(QP_STATE);

function isLegal(type: QpType, from: QpState, to: QpState): boolean {
  if (to === QP_STATE.RESET) return true;
  if (to === QP_STATE.ERR) return from !== QP_STATE.RESET;
  const table = type === QP_TYPE.RC ? RC_REQUIRED : UD_REQUIRED;
  return `${QP_STATE_NAMES[from]}>${QP_STATE_NAMES[to]}` in table;
}

describe("queue pair states", () => {
  for (const [type, table] of [
    [QP_TYPE.RC, RC_REQUIRED],
    [QP_TYPE.UD, UD_REQUIRED],
  ] as const) {
    it(`type ${type}: every pair of states is legal with its attributes or refused by name`, () => {
      for (const from of ALL_STATES) {
        for (const to of ALL_STATES) {
          const move = `${QP_STATE_NAMES[from]}>${QP_STATE_NAMES[to]}`;
          const attributes = { ...table[move], state: to };
          if (isLegal(type, from, to)) {
            expect(() => checkTransition(type, from, attributes), move).not.toThrow();
          } else {
            const words = `can't go from ${QP_STATE_NAMES[from]} to ${QP_STATE_NAMES[to]}`;
            expect(() => checkTransition(type, from, attributes), move).toThrow(words);
          }
        }
      }
    });

    it(`type ${type}: each required attribute is missed, each foreign one refused`, () => {
      for (const [move, required] of Object.entries(table)) {
        const [from, to] = move.split(">").map((name) => QP_STATE_NAMES.indexOf(name as "RTS"));
        for (const name of Object.keys(required)) {
          const rest: QpAttributes = { ...required, state: to as QpState };
          delete rest[name as keyof QpAttributes];
          expect(() => checkTransition(type, from as QpState, rest)).toThrow(`missing ${name}`);
        }
      }
      const superfluous: QpAttributes = { state: QP_STATE.ERR, timeout: 1 };
      expect(() => checkTransition(type, QP_STATE.RTS, superfluous)).toThrow(
        "RTS to ERR: superfluous timeout",
      );
    });
  }

  it("a refusal names both states and everything that is wrong at once", () => {
    const attributes: QpAttributes = { state: QP_STATE.RTR, pathMtu: 1000 as 1024, qkey: 1 };
    expect(() => checkTransition(QP_TYPE.RC, QP_STATE.INIT, attributes)).toThrow(
      "INIT to RTR: missing addressVector, destinationQpn, rqPsn, maxDestRdAtomic, minRnrTimer; " +
        "superfluous qkey; out of range pathMtu",
    );
  });

  it("ranges: a value beyond its field is refused", () => {
    const at = (state: QpState, attributes: QpAttributes) => () =>
      checkTransition(QP_TYPE.RC, state, attributes);
    expect(at(QP_STATE.RTS, { minRnrTimer: 32 })).toThrow("out of range minRnrTimer");
    expect(at(QP_STATE.SQD, { timeout: 32 })).toThrow("out of range timeout");
    expect(at(QP_STATE.SQD, { retryCount: 8 })).toThrow("out of range retryCount");
    expect(at(QP_STATE.SQD, { maxRdAtomic: 1.5 })).toThrow("out of range maxRdAtomic");
    expect(at(QP_STATE.RTS, { accessFlags: -1 })).toThrow("out of range accessFlags");
  });

  it("a wrong assumption about the current state is refused", () => {
    const attributes: QpAttributes = { currentState: QP_STATE.RTS, state: QP_STATE.ERR };
    expect(() => checkTransition(QP_TYPE.RC, QP_STATE.INIT, attributes)).toThrow(
      "the queue pair is in INIT, not in RTS",
    );
  });
});
