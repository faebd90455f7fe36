import { type RefObject, useEffect, useRef, useState } from 'react'

/**
 * For a form that was refused: `show` moves the focus to its first wrong field, where the error is read out with it.
 * That happens once the fields are marked as wrong, which is after the next rendering.
 */
export function useInvalidField(): [form: RefObject<HTMLFormElement | null>, show: () => void] {
  const form = useRef<HTMLFormElement>(null)
  const [asked, setAsked] = useState(0)
  useEffect(() => {
    if (asked > 0) form.current?.querySelector<HTMLElement>('[aria-invalid=true]')?.focus()
  }, [asked])
  return [form, () => setAsked((count) => count + 1)]
}
