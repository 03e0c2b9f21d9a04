// SPDX-License-Identifier: MIT
export { explainText, headline, pathText } from "./explain.js";
export { hex, Inventory, type InventoryItem } from "./inventory.js";
export { deviceJson, matrixJson, P2P_SCHEMA, pairJson, pathJson, treeJson } from "./json.js";
export { KINDS, type Kind, kindOf, LABELS, PEER_KINDS } from "./kind.js";
export {
  countAnswers,
  type Judge,
  type Matrix,
  makeMatrix,
  matrixText,
} from "./matrix.js";
export { PAIRS_MAX, select, selectDefault, selectOne, selectPairs } from "./select.js";
export { treeSvg } from "./svg.js";
export { makeTree, type Tree, type TreeNode, type TreeOptions, treeText } from "./tree.js";
export {
  ANSWER_SIGNS,
  ANSWER_TEXTS,
  ANSWERS,
  type Answer,
  answerOf,
  linkText,
  rateText,
  sizeText,
  tableText,
} from "./words.js";
