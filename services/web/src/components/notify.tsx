import { createContext, type ReactNode, use, useEffect, useState } from 'react'

const SECONDS = 6
const Context = createContext<(text: string) => void>(() => undefined)

/** Tells the user what has happened: `notify('Post deleted.')`. Seen for a while, and read out by screen readers. */
export function useNotify(): (text: string) => void {
  return use(Context)
}

export function Notifications({ children }: { children: ReactNode }) {
  // A number with each, so that the same words twice are two messages.
  const [message, setMessage] = useState({ number: 0, text: '' })
  useEffect(() => {
    if (message.text === '') return
    const timer = setTimeout(() => setMessage((now) => (now === message ? { ...now, text: '' } : now)), SECONDS * 1000)
    return () => clearTimeout(timer)
  }, [message])
  return (
    <Context value={(text) => setMessage(({ number }) => ({ number: number + 1, text }))}>
      {children}
      <div role="status" className="toasts">
        {message.text !== '' && (
          <p key={message.number} className="toast">
            {message.text}
          </p>
        )}
      </div>
    </Context>
  )
}
