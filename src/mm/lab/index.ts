// SPDX-License-Identifier: MIT

export {
  type HourSample,
  TRANSFER_BYTES,
  WEEK_HOURS,
  Week,
  type WeekEnd,
  type WeekOptions,
  type WeekResult,
} from "./week.js";
export { weeksSvg } from "./week-plot.js";
export {
  hourOfLoss,
  hoursText,
  hourText,
  LEGEND,
  refusedHours,
  summaryText,
  weeksCsv,
} from "./week-table.js";
