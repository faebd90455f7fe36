import { flushSync } from 'react-dom'
import { useAction } from '../hooks/action'
import { BusyButton } from './busy-button'
import { Dialog } from './dialog'
import { ErrorNotice } from './error-notice'

interface Props {
  title: string
  text: string
  /** What the button says that does it. */
  action: string
  work: () => Promise<void>
  done: () => void
  close: () => void
}

/** Asks before something that cannot be undone, does it, and says so if it fails. */
export function Confirm({ title, text, action, work, done, close }: Props) {
  const { running, error, run } = useAction()
  const confirm = async () => {
    if (!(await run(work))) return
    // Now, so that what is done next can move the focus: an open dialog would keep it.
    flushSync(close)
    done()
  }
  return (
    <Dialog title={title} close={close}>
      <p>{text}</p>
      <ErrorNotice error={error} />
      <div className="buttons">
        <button type="button" className="quiet" onClick={close}>
          Keep it
        </button>
        <BusyButton type="button" className="primary danger" busy={running} onClick={() => void confirm()}>
          {action}
        </BusyButton>
      </div>
    </Dialog>
  )
}
