/** What the service answers (see /openapi.json) and what the page holds. Read by tsc alone; not served. */

export type TaskPath = 'polyp-detection' | 'malignancy' | 'zero-shot';
export type Band = [number, number] | null;

export interface Limits {
  max_body_bytes: number;
  max_frames: number;
  max_frame_bytes: number;
  max_frame_pixels: number;
  min_side_px: number;
  max_labels: number;
  max_prompts: number;
  max_prompt_chars: number;
}

export interface OperatingPoint {
  name: string;
  frame_threshold: number;
  patient_threshold: number;
  frame_abstain: Band;
  patient_abstain: Band;
}
export interface MeasuredPoint extends OperatingPoint {
  measured?: Record<string, number>;
}

export interface Model {
  name: string;
  version: string;
  digest: string;
  execution_provider: string;
}
export interface LabelText {
  label: string;
  prompts: string[];
  definition: string;
}
export interface ModelDetail extends Model {
  created: string;
  intended_use: string;
  card: string;
  manifest: { input: { size: number; resize: 'squash' | 'shortest' } };
  label_sets: Record<string, { positive: string | null; labels: LabelText[] }>;
  operating_points: Record<string, Record<string, MeasuredPoint>>;
  site_profile?: { site: string; digest: string } | null;
}
export interface Device {
  name: string;
  crop: [number, number, number, number];
}

export interface Heatmap {
  rows: number;
  cols: number;
  values: number[];
  label: string;
}
export interface FrameAnswer {
  frame_id: string;
  status: 'scored' | 'abstained' | 'rejected';
  reason?: string;
  error?: { code: string; message: string };
  probability?: number;
  scores?: Record<string, number>;
  cosine?: Record<string, number>;
  decision?: Decision;
  top_label?: string;
  attention?: number | Record<string, number>;
  heatmap?: Heatmap;
  duplicate_of?: string;
}
export type Decision = 'positive' | 'negative' | 'abstained';
export interface PatientAnswer {
  patient_id: string;
  status: 'scored' | 'abstained' | 'rejected';
  probability?: number;
  scores?: Record<string, number>;
  decision?: Decision;
  reason?: string;
  top_label?: string;
  frames_total: number;
  frames_scored: number;
  frames: FrameAnswer[];
}
export interface Answer {
  request_id: string;
  task: string;
  model: Model;
  intended_use: string;
  labels: string[];
  label_definitions: Record<string, string>;
  operating_point?: OperatingPoint;
  patients: PatientAnswer[];
}

/** A frame as the page holds it. `name` is never sent. */
export interface Frame {
  name: string;
  blob: Blob;
  /** How it differs from the file that it comes from; '' where it is sent as it is. */
  note: string;
}

export interface LabelIn {
  label: string;
  prompts: string[];
}
export interface Ask {
  task: TaskPath;
  operatingPoint: string;
  device: string;
  labels: LabelIn[];
}

/** What there is to say of a frame or a patient in one word, and how it is coloured. */
export type Tone = 'positive' | 'negative' | 'undecided' | 'aside' | 'rejected' | 'label' | 'waiting';
export interface Reading {
  tone: Tone;
  word: string;
  /** 0-1; null where there is none. */
  value: number | null;
  attention: number | null;
  /** Why, in a sentence; '' where there is nothing to explain. */
  why: string;
}

/** What the service says of itself, asked once. */
export interface Described {
  model: ModelDetail;
  devices: Device[];
  limits: Limits;
}

/** One task's part of an exam's result; `patient` as in an answer. */
export interface ExamResult {
  task: string;
  labels: string[];
  label_definitions: Record<string, string>;
  operating_point: OperatingPoint;
  patient: PatientAnswer;
}
export interface ExamAnswer {
  request_id: string;
  exam_id: string;
  state: 'open' | 'closing' | 'closed';
  final: boolean;
  takes_frames: boolean;
  revision: number;
  expires_at: string;
  model: Model;
  intended_use: string;
  results: ExamResult[];
}

/** What an exam's stream says; which members there are depends on `type`. */
export interface LiveMessage {
  type: 'open' | 'frame' | 'dropped' | 'kept' | 'full' | 'problem';
  captured_at?: string;
  status?: FrameAnswer['status'];
  reason?: string;
  error?: FrameAnswer['error'];
  results?: Record<string, Partial<FrameAnswer>>;
  ms?: number;
  to_be_kept?: boolean;
  dropped?: { newer: number; overloaded: number; rate_limited: number };
  retry_after_s?: number;
  revision?: number;
  max_message_bytes?: number;
  code?: string;
  detail?: string;
  request_id?: string;
}

/** What became of a camera's frames. */
export interface LiveCounts {
  /** Given by the camera. */
  seen: number;
  /** Not sent: the ones before were still under way, or there was no line. */
  unsent: number;
  answered: number;
  /** Part of the exam. */
  kept: number;
  /** Let fall by the service, by its reasons. */
  newer: number;
  overloaded: number;
  rate_limited: number;
  /** Under way when the line broke or the view ended. */
  lost: number;
}
