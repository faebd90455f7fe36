/** Errors of the API as one class, whatever they look like on the wire. */

/** One field that the server did not accept: `field` is the last part of its JSON pointer. */
export interface FieldError {
  field: string
  detail: string
  code?: string
}

interface Details {
  code: string
  detail?: string | undefined
  /** Seconds to wait before another attempt makes sense. */
  retryAfter?: number | undefined
  fields?: FieldError[] | undefined
  requestId?: string | undefined
  extra?: Record<string, unknown> | undefined
}

/** What went wrong. `status` is 0 when there was no answer at all; `code` is the stable part to decide by. */
export class ApiError extends Error {
  readonly status: number
  readonly code: string
  readonly detail: string
  readonly retryAfter: number | undefined
  readonly fields: FieldError[]
  readonly requestId: string | undefined
  readonly extra: Record<string, unknown>

  constructor(status: number, details: Details) {
    super(details.detail ?? details.code)
    this.name = 'ApiError'
    this.status = status
    this.code = details.code
    this.detail = details.detail ?? ''
    this.retryAfter = details.retryAfter
    this.fields = details.fields ?? []
    this.requestId = details.requestId
    this.extra = details.extra ?? {}
  }

  /** Whether the same request may succeed a little later. */
  get temporary(): boolean {
    return this.status === 0 || this.status === 429 || (this.status >= 502 && this.status <= 504)
  }
}

const PREFIX = 'urn:slipway:problem:'
const MAX_WAIT = 3600

/** An answer that is no success, as ApiError. Proxies in between send errors of their own: HTML, or nothing. */
export function problemOf(status: number, header: (name: string) => string | null, body: string): ApiError {
  const document = isProblem(header('content-type')) ? parse(body) : {}
  const type = text(document['type']) ?? ''
  const errors = Array.isArray(document['errors']) ? document['errors'] : []
  return new ApiError(status, {
    code: type.startsWith(PREFIX) ? type.slice(PREFIX.length) : `http-${status}`,
    detail: text(document['detail']),
    retryAfter: retryAfterOf(header('retry-after')),
    fields: errors.map(fieldError).filter((field) => field !== null),
    requestId: text(document['request_id']) ?? header('x-request-id') ?? undefined,
    extra: document,
  })
}

/** What fetch threw, as ApiError; an abort by the caller stays what it is. */
export function failureOf(error: unknown): unknown {
  if (error instanceof DOMException && error.name === 'AbortError') return error
  if (error instanceof DOMException && error.name === 'TimeoutError') return new ApiError(0, { code: 'timeout' })
  if (error instanceof TypeError) return new ApiError(0, { code: navigator.onLine ? 'unreachable' : 'offline' })
  return error
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError'
}

/** Retry-After is a number of seconds or a date (RFC 9110, 10.2.3). */
export function retryAfterOf(value: string | null, now: number = Date.now()): number | undefined {
  if (value === null) return undefined
  const seconds = /^\d+$/.test(value.trim()) ? Number(value) : Math.ceil((Date.parse(value) - now) / 1000)
  return Number.isNaN(seconds) ? undefined : Math.min(Math.max(seconds, 0), MAX_WAIT)
}

function isProblem(contentType: string | null): boolean {
  return contentType?.split(';')[0]?.trim().toLowerCase() === 'application/problem+json'
}

function parse(body: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(body)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}

function fieldError(value: unknown): FieldError | null {
  if (typeof value !== 'object' || value === null) return null
  const entry = value as Record<string, unknown>
  const field = text(entry['pointer'])?.split('/').at(-1) ?? text(entry['name']) ?? ''
  const code = text(entry['code'])
  return { field, detail: text(entry['detail']) ?? '', ...(code === undefined ? {} : { code }) }
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}
