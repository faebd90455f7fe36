import { ApiError } from '../api/problem'
import { sentenceOf } from '../api/sentences'
import { useCountdown } from '../hooks/countdown'

interface Props {
  error: unknown
  /** Offered where trying again is all that the user can do. */
  retry?: (() => void) | undefined
}

/** What went wrong, as a sentence that screen readers read out at once. Renders nothing without an error. */
export function ErrorNotice({ error, retry }: Props) {
  if (error === undefined) return null
  const reference = error instanceof ApiError && error.status >= 500 ? error.requestId : undefined
  return (
    <div className="notice">
      <p role="alert">{sentenceOf(error, { wait: retry === undefined })}</p>
      {reference !== undefined && <p className="reference">Reference: {reference}</p>}
      {retry && <Retry key={keyOf(error)} wait={error instanceof ApiError ? (error.retryAfter ?? 0) : 0} retry={retry} />}
    </div>
  )
}

function Retry({ wait, retry }: { wait: number; retry: () => void }) {
  const left = useCountdown(wait)
  // aria-disabled and not disabled: the button keeps the focus while it waits.
  return (
    <button type="button" className="quiet" aria-disabled={left > 0} onClick={() => left === 0 && retry()}>
      {left > 0 ? `Try again in ${left} s` : 'Try again'}
    </button>
  )
}

const keys = new WeakMap<object, number>()
let last = 0

/** A key for each error, so that a second one of the same kind counts down from the beginning. */
function keyOf(error: unknown): number {
  if (typeof error !== 'object' || error === null) return 0
  const known = keys.get(error)
  if (known !== undefined) return known
  last += 1
  keys.set(error, last)
  return last
}
